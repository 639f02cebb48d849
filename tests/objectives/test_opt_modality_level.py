"""OPT's modality level: the formula with fixed networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.modality_masking import keep_as_released, keep_modalities
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.ops.random import fold_name
from tests import batches
from tests.fakes import FakeNets

BATCH, WIDTH, LENGTHS = 8, 3, {"text": batches.LENGTH, "image": 4, "audio": 8}


def fakes(seed=0):
    """(networks, logits that the decoder returns, token masks of the encoders)."""
    rng = np.random.default_rng(seed)
    masks = {k: rng.uniform(size=(BATCH, n)) < 0.8 for k, n in LENGTHS.items()}
    logits = rng.normal(size=(BATCH, batches.LENGTH - 1, batches.VOCAB)).astype(np.float32)

    def encoder(name):
        tokens = jnp.zeros((BATCH, LENGTHS[name], WIDTH))
        return lambda *_: Encoded(tokens=tokens, mask=jnp.asarray(masks[name]))

    def fusion(text, image, audio):
        cls = jnp.ones((len(text.mask), 1), bool)
        mask = jnp.concatenate([cls, text.mask, image.mask, audio.mask], 1)
        return Encoded(tokens=jnp.ones((*mask.shape, WIDTH)), mask=mask)

    encoders = {name: encoder(name) for name in LENGTHS}

    def decoder(tokens, *_, **__):
        return jnp.asarray(logits[: len(tokens)])

    return FakeNets(**encoders, fusion=fusion, text_decoder=decoder), logits, masks


@pytest.mark.parametrize(
    "masking, smoothing, share",
    [("paper", 0.0, 1.0), ("paper", 0.1, 1.0), ("released", 0.1, 1.0), ("paper", 0.0, 0.5)],
)
def test_loss_is_the_formula(masking, smoothing, share):
    """Mean of -sum_k q_k log p_k over the next tokens of rows that have text and keep something."""
    batch, used = batches.triplets(BATCH, 4), round(share * BATCH)
    batch["has_text"][1] = False  # a row that can be read but has nothing to write
    for name in ("image", "audio"):
        batch[f"has_{name}"][2] = False  # a row of text only
    has = np.stack([batch[f"has_{m}"] for m in LENGTHS], -1)[:used]
    nets, logits, masks = fakes()
    objective = OPTModalityLevel(source="s", masking=masking, smoothing=smoothing, share=share)
    rng = jax.random.key(6)
    loss = objective.loss(nets, {k: jnp.asarray(v) for k, v in batch.items()}, None, rng)
    keep = keep_modalities if masking == "paper" else keep_as_released
    keep = np.asarray(keep(fold_name(rng, "modalities"), has))

    # What the decoder was given: the text so far, and only what was kept.
    (tokens, mask, _, memory_mask), told = nets.asked("text_decoder")
    np.testing.assert_array_equal(tokens, batch["text"][:used, :-1])
    np.testing.assert_array_equal(mask, batch["text_mask"][:used, :-1])
    visible = [
        masks[m][:used] & has[:, i : i + 1] & keep[:, i : i + 1]
        for i, m in enumerate(LENGTHS)
        if masking == "paper" or m != "text"
    ]
    np.testing.assert_array_equal(
        memory_mask, np.concatenate([np.ones((used, 1), bool), *visible], 1)
    )
    assert told == {}

    terms, right, blind = [], [], []
    for b in range(used):
        if not (has[b, 0] and keep[b].any()):
            continue
        for i in range(1, batches.LENGTH):
            if not batch["text_mask"][b, i]:
                continue
            scores, label = logits[b, i - 1].astype(np.float64), batch["text"][b, i]
            log_p = scores - np.log(np.exp(scores).sum())
            q = np.full(len(scores), smoothing / len(scores))
            q[label] += 1 - smoothing
            terms.append(-(q * log_p).sum())
            right.append(scores.argmax() == label)
            blind.append(not keep[b, 0])
    assert len(blind) > 10 and (used < BATCH or sum(blind) > 0)
    np.testing.assert_allclose(loss.value, np.mean(terms), rtol=1e-5)
    assert loss.metrics["accuracy"] == (sum(right), len(right))
    assert loss.metrics["accuracy_without_text"] == (np.logical_and(right, blind).sum(), sum(blind))


def test_languages_reach_the_decoder():
    batch = {k: jnp.asarray(v) for k, v in batches.triplets(BATCH).items()}
    batch["lang"] = jnp.arange(BATCH) % 2
    nets, *_ = fakes()
    OPTModalityLevel(source="s", share=0.5).loss(nets, batch, None, jax.random.key(0))
    np.testing.assert_array_equal(nets.asked("text_decoder")[1]["language"], [0, 1, 0, 1])


def test_nothing_to_write_or_nothing_to_read():
    batch = {k: jnp.asarray(v) for k, v in batches.triplets(BATCH).items()}
    nobody = jnp.zeros(BATCH, bool)
    no_text = batch | {"has_text": nobody}
    only_text = batch | {"has_image": nobody, "has_audio": nobody}
    for fields, masking in ((no_text, "paper"), (only_text, "released")):
        objective = OPTModalityLevel(source="s", masking=masking)
        loss = objective.loss(fakes()[0], fields, None, jax.random.key(0))
        assert loss.value == 0 and loss.metrics["accuracy"] == (0, 0)


def test_unknown_masking():
    with pytest.raises(UserError, match="masking='relased'; did you mean 'released'"):
        OPTModalityLevel(source="s", masking="relased")
