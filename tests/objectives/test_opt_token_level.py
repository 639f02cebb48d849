"""OPT's token level: exact mask statistics, then every term in NumPy loops with fixed networks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.opt_token_level import (
    OPTTokenLevel,
    contrast,
    contrast_as_released,
    hide,
)
from taichu_jax.ops.vocabulary import FIRST_TOKEN, MASK
from taichu_jax.training.state import Batch
from tests import batches
from tests.fakes import FakeNets

BATCH, WIDTH, PATCH, STRIDE, CLASSES = 10, 6, 8, 4, 7
LENGTHS = {"text": batches.LENGTH, "image": 4, "audio": batches.FRAMES // STRIDE}


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b / max(math.sqrt(a @ a) * math.sqrt(b @ b), 1e-12)


# --- which tokens are hidden ---


def test_hidden_share():
    """round(0.15 n) of n, at least one; nothing where there is nothing."""
    allowed = np.arange(40) < np.arange(41)[:, None]
    hidden = np.asarray(hide(jax.random.key(0), allowed, 0.15, 0.0))
    assert not (hidden & ~allowed).any()
    want = [min(n, max(1, round(0.15 * n))) for n in range(41)]
    np.testing.assert_array_equal(hidden.sum(1), want)


def test_whole_modality():
    """Everything with probability 0.3, by row, else the usual share; positions stay uniform."""
    rows, n = 6000, 20
    hidden = np.asarray(hide(jax.random.key(1), np.ones((rows, n), bool), 0.15, 0.3))
    count = hidden.sum(1)
    assert set(count) == {3, n}
    assert abs((count == n).mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / rows)
    share = hidden[count == 3].mean(0)
    assert np.abs(share - 0.15).max() < 5 * math.sqrt(0.15 * 0.85 / (count == 3).sum())
    some = np.asarray(hide(jax.random.key(1), np.arange(n) < np.full((rows, 1), 7), 0.15, 0.3))
    assert set(some.sum(1)) == {1, 7} and not some[:, 7:].any()


class Model:
    """Encoders and a fusion that return fixed states, linear heads, and tied logits."""

    def __init__(self, size=BATCH, seed=0):
        rng = np.random.default_rng(seed)

        def normal(*shape):
            return rng.normal(size=shape).astype(np.float32)

        self.fused = normal(size, 1 + sum(LENGTHS.values()), WIDTH)
        self.vocabulary = normal(WIDTH, batches.VOCAB)
        self.pixels = normal(WIDTH, PATCH * PATCH * 3) / 2
        self.frames = normal(WIDTH, STRIDE * batches.BANDS)
        self.labels = normal(WIDTH, CLASSES)
        starts = np.cumsum([1, *LENGTHS.values()])
        self.states = {
            k: self.fused[:, s : s + n] for (k, n), s in zip(LENGTHS.items(), starts, strict=False)
        }

    def nets(self):
        def encoder(name):
            def encode(x, *_, **__):
                shape = (len(x), LENGTHS[name])
                return Encoded(tokens=jnp.zeros((*shape, 1)), mask=jnp.ones(shape, bool))

            return encode

        def fusion(text, image, audio):
            mask = jnp.concatenate([text.mask, image.mask, audio.mask], 1)
            return Encoded(tokens=jnp.asarray(self.fused[: len(mask)]), mask=mask)

        return FakeNets(
            **{name: encoder(name) for name in LENGTHS},
            fusion=fusion,
            text__logits=lambda x: x @ self.vocabulary,
            image_prediction=lambda x: x @ self.pixels,
            audio_prediction=lambda x: x @ self.frames,
            label_prediction=lambda x: x @ self.labels,
        )


def objective(**fields):
    fields = {"source": "s", "vocab_size": batches.VOCAB, "patch": PATCH, "stride": STRIDE} | fields
    return OPTTokenLevel(**fields)


@functools.cache
def example():
    """Rows that lack modalities, speech that ends inside a token, and labels for some patches."""
    batch = batches.triplets(BATCH, 2)
    rng = np.random.default_rng(3)
    batch["labels"] = rng.integers(-1, CLASSES, (BATCH, LENGTHS["image"])).astype(np.int32)
    for row, name in enumerate(LENGTHS):
        batch[f"has_{name}"][row] = False
    assert (batch["mel_lengths"] % STRIDE != 0).any()
    return batch


def arrays(batch):
    return {k: jnp.asarray(v) for k, v in batch.items()}


@pytest.mark.parametrize("whole", [0.0, 0.3])
def test_what_the_encoders_see(whole):
    """Only real tokens are hidden, by the share; the encoders get those masks and the corrupted text."""
    batch = batches.triplets(300, 5)
    nets = Model(300).nets()
    chosen = objective(whole_modality=whole)
    hidden = chosen.look(nets, arrays(batch), jax.random.key(0))["hidden"]
    hidden = {k: np.asarray(v) for k, v in hidden.items()}
    real = {
        "text": batch["text_mask"] & (batch["text"] >= FIRST_TOKEN),
        "image": np.ones((300, 4), bool),
        "audio": np.arange(8) < np.ceil(batch["mel_lengths"] / STRIDE)[:, None],
    }
    everything = {}
    for name, mask in hidden.items():
        allowed = real[name] & batch[f"has_{name}"][:, None]
        assert not (mask & ~allowed).any(), name
        n, count = allowed.sum(1), mask.sum(1)
        share = np.array([min(k, max(1, round(0.15 * k))) for k in n.tolist()])
        if whole:
            assert ((count == share) | (count == n)).all()
            told_apart = n > share
            everything[name] = np.where(told_apart, count == n, np.nan)
            rate = np.nanmean(everything[name])
            assert abs(rate - 0.3) < 4 * math.sqrt(0.21 / told_apart.sum()), name
        else:
            np.testing.assert_array_equal(count, share, err_msg=name)
    if whole:  # the three are drawn independently
        for a, b in (("text", "image"), ("text", "audio"), ("image", "audio")):
            both = everything[a] * everything[b]
            n = np.isfinite(both).sum()
            assert abs(np.nanmean(both) - 0.09) < 4 * math.sqrt(0.09 * 0.91 / n), (a, b)
    (seen, mask), _ = nets.asked("text")
    seen = np.asarray(seen)
    np.testing.assert_array_equal(mask, batch["text_mask"])
    assert not ((seen != batch["text"]) & ~hidden["text"]).any()
    masked = (seen == MASK)[hidden["text"]].mean()
    assert abs(masked - 0.8) < 4 * math.sqrt(0.16 / hidden["text"].sum())
    np.testing.assert_array_equal(nets.asked("image")[1]["mask"], hidden["image"])
    np.testing.assert_array_equal(nets.asked("audio")[1]["mask"], hidden["audio"])
    # The fusion is told which rows lack what.
    for name, part in nets.asked("fusion")[1].items():
        np.testing.assert_array_equal(part.mask.any(1), batch[f"has_{name}"])


def test_fixed_text_masking():
    """Two [MASK] in every text, no other corruption, no whole modality, fewer only in shorter texts."""
    batch = batches.triplets(200, 6)
    batch["text"][:3, 1:-1] = 3  # only special tokens between the ends, but for one
    batch["text"][0, 1] = FIRST_TOKEN
    batch["text_mask"][0] = batch["has_text"][0] = True
    nets = Model(200).nets()
    chosen = objective(text_masking="fixed", whole_modality=0.3)
    hidden = chosen.look(nets, arrays(batch), jax.random.key(0))["hidden"]
    hidden = np.asarray(hidden["text"])
    allowed = batch["text_mask"] & (batch["text"] >= FIRST_TOKEN) & batch["has_text"][:, None]
    np.testing.assert_array_equal(hidden.sum(1), np.minimum(2, allowed.sum(1)))
    assert hidden[0].sum() == 1 and not (hidden & ~allowed).any()
    seen = nets.asked("text")[0][0]
    np.testing.assert_array_equal(seen, np.where(hidden, MASK, batch["text"]))


# --- the loss ---


def terms_of(chosen, batch, model, hidden):
    """Every term of the paper by loops: a mean over the hidden tokens of the batch."""
    words, pixels, labels, frames, contrasts = [], [], [], [], []
    for b, i in np.argwhere(hidden["text"]):
        scores = model.states["text"][b, i].astype(np.float64) @ model.vocabulary
        words.append(np.log(np.exp(scores).sum()) - scores[batch["text"][b, i]])
    side = batches.SIZE // PATCH
    for b, i in np.argwhere(hidden["image"]):
        row, column = divmod(i, side)
        patch = batch["image"][b, row * PATCH : (row + 1) * PATCH]
        patch = 2 * patch[:, column * PATCH : (column + 1) * PATCH].ravel() - 1
        state = model.states["image"][b, i].astype(np.float64)
        pixels.append(np.mean((state @ model.pixels - patch) ** 2))
        if (label := batch["labels"][b, i]) >= 0:
            scores = state @ model.labels
            labels.append(np.log(np.exp(scores).sum()) - scores[label])
    count = LENGTHS["audio"]
    mel = batch["mel"].copy()
    for b in range(len(mel)):
        mel[b, batch["mel_lengths"][b] :] = 0
    target = mel.reshape(len(mel), count, -1)
    for b, i in np.argwhere(hidden["audio"]):
        heard = model.states["audio"][b, i].astype(np.float64) @ model.frames
        frames.append(np.mean((heard - target[b, i]) ** 2))
        own = math.exp(cosine(heard, target[b, i]))
        others = 0.0
        for j in range(math.ceil(batch["mel_lengths"][b] / STRIDE)):
            if not hidden["audio"][b, j]:
                others += math.exp(cosine(heard, target[b, j]))
        contrasts.append(-math.log(own / (own + others)))
    losses = {"mlm": words, "mvfr": pixels, "mafr": frames, "audio_contrast": contrasts}
    if chosen.patch_labels:
        losses["mrc"] = labels
    return losses


@pytest.mark.parametrize(
    "fields",
    [{}, {"rate": 0.5, "patch_labels": "labels"}, {"whole_modality": 0.5, "share": 0.8}],
    ids=["paper", "labels", "whole"],
)
def test_loss_is_the_formula(fields):
    chosen, model, rng = objective(**fields), Model(), jax.random.key(4)
    used = round(chosen.share * BATCH)
    batch = {k: v[:used] for k, v in example().items()}
    hidden = chosen.look(model.nets(), arrays(batch), rng)["hidden"]
    losses = terms_of(chosen, batch, model, {k: np.asarray(v) for k, v in hidden.items()})
    nets = model.nets()
    loss = chosen.loss(nets, arrays(example()), None, rng)
    for name, values in losses.items():
        assert len(values) > 3 or name == "mrc"
        np.testing.assert_allclose(loss.metrics[name][0], np.mean(values), rtol=2e-5, err_msg=name)
        assert loss.metrics[name][1] == 1
    np.testing.assert_allclose(loss.value, sum(map(np.mean, losses.values())), rtol=2e-5)
    assert loss.metrics["mlm_accuracy"][1] == len(losses["mlm"])
    assert ("mrc" in loss.metrics) == (chosen.patch_labels is not None)
    if chosen.patch_labels:
        assert 0 < loss.metrics["mrc_accuracy"][1] == len(losses["mrc"]) < hidden["image"].sum()


def test_released_contrast_is_in_the_loss():
    model, rng, batch = Model(), jax.random.key(4), arrays(example())
    paper, released = (
        objective(audio_contrast=kind).loss(model.nets(), batch, None, rng).metrics
        for kind in ("paper", "released")
    )
    assert released["mafr"] == paper["mafr"]
    hidden = np.asarray(objective().look(model.nets(), batch, rng)["hidden"]["audio"])
    target = np.where(
        (np.arange(batches.FRAMES) < example()["mel_lengths"][:, None])[..., None],
        example()["mel"],
        0,
    ).reshape(BATCH, LENGTHS["audio"], -1)
    heard = model.states["audio"] @ model.frames
    want = released_reference(heard, target, hidden)
    np.testing.assert_allclose(released["audio_contrast"][0], want[hidden].mean(), rtol=1e-4)


def test_nothing_there():
    nobody = jnp.zeros(BATCH, bool)
    batch = arrays(example()) | {f"has_{m}": nobody for m in LENGTHS}
    loss = objective(patch_labels="labels").loss(Model().nets(), batch, None, jax.random.key(0))
    assert loss.value == 0


# --- the contrastive term by itself ---


def released_reference(predicted, target, masked):
    """Window of the rows i - 5 ... i + 5 moved inside the flattened batch, without i."""
    predicted, target = (x.reshape(-1, x.shape[-1]) for x in (predicted, target))
    shape, masked = masked.shape, masked.ravel()
    n = len(target)
    losses = np.zeros(n)
    for i in np.flatnonzero(masked):
        left = min(max(i - 5, 0), n - 11)
        scores = [(1 - cosine(predicted[i], target[i])) / 0.1]
        for j in range(left, left + 11):
            if j != i:
                scores.append((1 - (0 if masked[j] else cosine(predicted[i], target[j]))) / 0.1)
        assert len(scores) == 11
        losses[i] = np.log(np.exp(scores).sum()) - scores[0]
    return losses.reshape(shape)


def frames(seed=0, shape=(3, 9, 16)):
    rng = np.random.default_rng(seed)
    predicted, target = rng.normal(size=(2, *shape)).astype(np.float32)
    masked = rng.uniform(size=shape[:2]) < 0.3
    masked[0, 0] = masked[-1, -1] = True  # the ends of the flattened batch
    return predicted, target, masked


def test_released_contrast_is_the_released_code():
    predicted, target, masked = frames()
    got = contrast_as_released(predicted, target, masked)
    np.testing.assert_allclose(got, released_reference(predicted, target, masked), rtol=1e-4)


def test_released_contrast_has_the_wrong_sign_and_the_papers_has_not():
    _, target, _ = frames(1)
    masked = np.zeros(target.shape[:2], bool)
    masked[:, 4] = True
    paper, released = {}, {}
    for sign in (1, -1):
        paper[sign] = contrast(sign * target, target, masked, ~masked)[masked].mean()
        released[sign] = contrast_as_released(sign * target, target, masked)[masked].mean()
    assert paper[1] < paper[-1]
    assert released[1] > 10 and released[-1] < 0.1


def test_closed_forms():
    """Frames at right angles: log(1 + n e^-1); as released log(1 + 10 e^10) or log(1 + 10 e^-10)."""
    target = np.eye(12, dtype=np.float32)[None]
    masked = np.arange(12)[None] == 6
    got = contrast(target, target, masked, ~masked)[0, 6]
    np.testing.assert_allclose(got, math.log(1 + 11 * math.exp(-1)), rtol=1e-6)
    for sign, exponent in ((1, 10), (-1, -10)):
        got = contrast_as_released(sign * target, target, masked)[0, 6]
        np.testing.assert_allclose(got, math.log1p(10 * math.exp(exponent)), rtol=2e-3)


def test_contrast_without_negatives_teaches_nothing():
    predicted, target, _ = frames()
    everything = np.ones(target.shape[:2], bool)

    def total(p):
        return contrast(p, target, everything, ~everything).sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray(predicted))
    assert value == 0 and (np.asarray(gradient) == 0).all()


def test_released_contrast_of_a_batch_with_fewer_than_ten_neighbours():
    predicted, target, masked = frames(shape=(1, 4, 8))
    value, gradient = jax.value_and_grad(lambda p: contrast_as_released(p, target, masked).sum())(
        jnp.asarray(predicted)
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()


# --- mistakes ---


@pytest.mark.parametrize("field", ["text_masking", "audio_contrast"])
def test_unknown_choices(field):
    with pytest.raises(UserError, match=f"{field}='new'; .*valid: "):
        objective(**{field: "new"})


def test_a_missing_field_is_named():
    chosen = objective(patch_labels="classes")
    batch = Batch.of(chosen, "tokens", {"s": arrays(example())})
    with pytest.raises(UserError, match="stream 's' has no field 'classes'"):
        jax.eval_shape(lambda: chosen.loss(Model().nets(), batch, None, jax.random.key(0)).value)
