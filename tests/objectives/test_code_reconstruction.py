"""Pictures and voices from what is left of an example: the loss in NumPy loops, with fixed networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.modality_masking import keep_as_released, keep_modalities
from taichu_jax.objectives.multimodal.opt_audio_reconstruction import OPTAudioReconstruction
from taichu_jax.objectives.multimodal.opt_image_reconstruction import OPTImageReconstruction
from taichu_jax.ops.random import fold_name
from taichu_jax.training.optim import DEFAULT_RULES, AdamW, Optimizer, Rule
from taichu_jax.training.state import TrainState
from taichu_jax.training.step import make_step
from tests import batches
from tests import case as cases
from tests.fakes import FakeNets

BATCH, WIDTH, STRIDE, ENTRIES = 8, 3, 8, 7
PARTS = {"text": batches.LENGTH, "image": 4, "audio": batches.FRAMES}
TOKENS = batches.FRAMES // STRIDE
KINDS = {
    "image": (OPTImageReconstruction, CodeDecoder(entries=ENTRIES, length=4, grid=(2, 2))),
    "audio": (
        OPTAudioReconstruction,
        CodeDecoder(entries=ENTRIES, length=TOKENS + 3, stages=3, ends=True),
    ),
}


def fields(seed=4):
    """Examples with every kind of gap."""
    batch = batches.triplets(BATCH, seed)
    has = np.ones((BATCH, 3), bool)
    has[1:6] = [[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
    for column, name in enumerate(MODALITIES):
        batch[f"has_{name}"] = has[:, column]
    batch["mel_lengths"] = np.where(has[:, 2], [32, 16, 17, 0, 0, 31, 24, 25], 0).astype(np.int32)
    batch["clean_mel"] = batch["mel"] + 1
    return batch, has


def fakes(kind, seed=0):
    """(networks, codes [B, N, S or S + 1], logits [B, L, S, V], token masks of the encoders)."""
    rng, decoder = np.random.default_rng(seed), KINDS[kind][1]
    masks = {k: rng.uniform(size=(BATCH, n)) < 0.8 for k, n in PARTS.items()}
    tokens = 4 if kind == "image" else TOKENS
    made = decoder.stages + (kind == "audio")  # by the tokeniser, one more than is written
    codes = rng.integers(0, ENTRIES, (BATCH, tokens, made)).astype(np.int32)
    shape = (BATCH, decoder.length, decoder.stages, decoder.choices)
    logits = (2 * rng.normal(size=shape)).astype(np.float32)

    def encoder(name):
        states = jnp.zeros((BATCH, PARTS[name], WIDTH))
        return lambda *_: Encoded(tokens=states, mask=jnp.asarray(masks[name]))

    def fusion(text, image, audio):
        cls = jnp.ones((len(text.mask), 1), bool)
        mask = jnp.concatenate([cls, text.mask, image.mask, audio.mask], 1)
        return Encoded(tokens=jnp.ones((*mask.shape, WIDTH)), mask=mask)

    name = f"{kind}_code_decoder"
    nets = {
        "fusion": fusion,
        name: lambda ids, *_, **__: jnp.asarray(logits[: len(ids)]),
        f"{name}__delayed": decoder.delayed,
        f"{name}__read": decoder.read,
        f"{name}__possible": decoder.possible,
        "image_tokeniser__codes": lambda images: jnp.asarray(
            codes[: len(images)].reshape(-1, 2, 2)
        ),
        "image_tokeniser__decode": lambda codes: codes,
        "audio_tokeniser__codes": lambda mel, lengths: jnp.asarray(codes[: len(mel)]),
        "audio_tokeniser__decode": lambda codes: codes,
        "audio_tokeniser__token_count": lambda lengths: -(-lengths // STRIDE),
    }
    return FakeNets(**{k: encoder(k) for k in PARTS}, **nets), codes, logits, masks


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    "masking, smoothing, share",
    [("paper", 0.0, 1.0), ("paper", 0.1, 0.75), ("released", 0.1, 1.0)],
)
def test_loss_is_the_formula(kind, masking, smoothing, share):
    """Mean of -sum_k q_k log p_k over what is written of rows that have it and can read something."""
    (batch, has), used, own = fields(), round(share * BATCH), MODALITIES.index(kind)
    nets, codes, logits, masks = fakes(kind)
    hide, how = (0.5, 0.2), {"masking": masking, "smoothing": smoothing, "share": share}
    objective = KINDS[kind][0](source="s", hide=hide, **how)
    rng = jax.random.key(6)
    loss = objective.loss(nets, {k: jnp.asarray(v) for k, v in batch.items()}, None, rng)
    released = functools.partial(keep_as_released, own=own, hide=hide)
    keep = {"paper": keep_modalities, "released": released}[masking]
    keep = np.asarray(keep(fold_name(rng, "modalities"), has[:used]))
    if masking == "released":
        assert not keep[:, own].any()

    terms, right, hidden, read, real = [], [], [], [], []
    stages, ends = (1, False) if kind == "image" else (3, True)
    steps = KINDS[kind][1].length
    for b in range(used):
        count = 4 if kind == "image" else -(-int(batch["mel_lengths"][b]) // STRIDE)
        written = np.full((steps, stages), ENTRIES + ends)  # the start
        for s in range(stages):
            for t in range(count):
                written[t + s, s] = codes[b, t, s]
        if ends:
            written[count, 0] = ENTRIES
        read.append(np.concatenate([np.full((1, stages), ENTRIES + ends), written[:-1]]))
        real.append((written != ENTRIES + ends).any(-1))
        if not (has[b, own] and keep[b].any()):
            continue
        for i, s in np.ndindex(steps, stages):
            if written[i, s] == ENTRIES + ends:
                continue
            classes = ENTRIES + (ends and s == 0)  # only the first stage can end
            scores = logits[b, i, s, :classes].astype(np.float64)
            log_p = scores - np.log(np.exp(scores).sum())
            q = np.full(classes, smoothing / classes)
            q[written[i, s]] += 1 - smoothing
            terms.append(-(q * log_p).sum())
            right.append(scores.argmax() == written[i, s])
            hidden.append(not keep[b, own])
    assert len(terms) > 8 and (any(hidden) or share < 1)
    np.testing.assert_allclose(loss.value, np.mean(terms), rtol=1e-5)
    assert loss.metrics["accuracy"] == (sum(right), len(right))
    expected = (np.logical_and(right, hidden).sum(), sum(hidden))
    assert loss.metrics[f"accuracy_without_{kind}"] == expected

    # What the decoder was given: what was written before each step, and only what was kept.
    (ids, mask, _, memory_mask), told = nets.asked(f"{kind}_code_decoder")
    np.testing.assert_array_equal(ids, read)
    np.testing.assert_array_equal(mask, real)
    visible = [
        masks[m][:used] & keep[:, i : i + 1]
        for i, m in enumerate(PARTS)
        if masking == "paper" or m != kind
    ]
    cls = np.ones((used, 1), bool)
    np.testing.assert_array_equal(memory_mask, np.concatenate([cls, *visible], 1))
    assert told == {}
    # What the tokeniser was given: with weights that stay, the frames that are to be heard.
    (inputs, *_), _ = nets.asked(f"{kind}_tokeniser.codes, frozen")
    np.testing.assert_array_equal(inputs, batch["image" if kind == "image" else "clean_mel"][:used])


def test_frames_can_be_another_field():
    batch, _ = fields()
    nets, *_ = fakes("audio")
    OPTAudioReconstruction(source="s", frames="mel").loss(nets, batch, None, jax.random.key(0))
    np.testing.assert_array_equal(nets.asked("audio_tokeniser.codes, frozen")[0][0], batch["mel"])


@pytest.mark.parametrize("kind", list(KINDS))
def test_nothing_to_write_or_nothing_to_read(kind):
    batch, _ = fields()
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    nobody = jnp.zeros(BATCH, bool)
    nothing_to_write = batch | {f"has_{kind}": nobody}
    others = {f"has_{m}": nobody for m in MODALITIES if m != kind}
    for case, masking in ((nothing_to_write, "paper"), (batch | others, "released")):
        objective = KINDS[kind][0](source="s", masking=masking)
        loss = objective.loss(fakes(kind)[0], case, None, jax.random.key(0))
        assert loss.value == 0 and loss.metrics["accuracy"] == (0, 0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_languages_reach_the_decoder(kind):
    batch, _ = fields()
    batch["lang"] = np.arange(BATCH) % 2
    nets, *_ = fakes(kind)
    KINDS[kind][0](source="s", share=0.5).loss(nets, batch, None, jax.random.key(0))
    told = nets.asked(f"{kind}_code_decoder")[1]
    np.testing.assert_array_equal(told["language"], [0, 1, 0, 1])


def test_unknown_masking():
    with pytest.raises(UserError, match="masking='relased'; did you mean 'released'"):
        OPTImageReconstruction(source="s", masking="relased")


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_run_has_all_of_the_tokeniser(kind):
    """Also what only decoding needs."""
    modules, _, params, *_ = cases.built(f"opt_{kind}_reconstruction")
    batch, _ = fields()

    def there_and_back(tokeniser, *inputs):
        return tokeniser.decode(tokeniser.codes(*inputs))

    inputs = (batch["image"],) if kind == "image" else (batch["mel"], batch["mel_lengths"])
    init = functools.partial(modules[f"{kind}_tokeniser"].init, method=there_and_back)
    whole = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
    assert jax.tree.map(jnp.shape, params[f"{kind}_tokeniser"]) == jax.tree.map(jnp.shape, whole)


def test_the_tokeniser_stays_bit_for_bit():
    modules, objective, params, *_ = cases.built("opt_image_reconstruction")
    rules = (Rule(pattern="^image_tokeniser/", rate=0.0), *DEFAULT_RULES)
    optimizer = Optimizer(AdamW(learning_rate=0.1, weight_decay=0.5, rules=rules))
    moments = optimizer.init(params)
    assert not [k for k in optimizer.split(params)[0] if "tokeniser" in k]
    assert len(moments.mu) == len(optimizer.split(params)[0])
    state = TrainState(jnp.int32(0), params, moments, {"drawing": {}}, {"drawing": None})
    step = jax.jit(make_step(modules, {"drawing": objective}, optimizer))
    for _ in range(2):
        state, _ = step(state, {"stream": cases.load("opt_image_reconstruction").batch})
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.params, params)
    assert all(jax.tree.leaves(same.pop("image_tokeniser")))
    assert not any(all(jax.tree.leaves(tree)) for tree in same.values())
