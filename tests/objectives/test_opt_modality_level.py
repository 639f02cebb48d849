"""OPT's modality level: exact distributions of what stays, then the formula with fixed networks."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.opt_modality_level import (
    OPTModalityLevel,
    keep_as_released,
    keep_modalities,
)
from taichu_jax.ops.random import fold_name
from tests import batches
from tests.fakes import FakeNets

PATTERNS = np.array(list(itertools.product([False, True], repeat=3)))  # rows with 0 to 3 modalities
ROWS = 12_000  # of every pattern


@functools.cache
def kept(masking):
    """bool [pattern, ROWS, 3]: what stays of rows that have text, image, audio as in PATTERNS."""
    keep = {"paper": keep_modalities, "released": keep_as_released}[masking]
    has = np.repeat(PATTERNS, ROWS, 0)
    drawn = np.asarray(jax.jit(keep)(jax.random.key(0), has))
    assert not (drawn & ~has).any()
    return drawn.reshape(len(PATTERNS), ROWS, 3)


def agree(drawn, probabilities):
    """Chi-square of drawn rows against {subset: probability}; other subsets must not occur."""
    subsets, counts = np.unique(drawn, axis=0, return_counts=True)
    counts = dict(zip(map(tuple, subsets.tolist()), counts, strict=True))
    assert set(counts) <= set(probabilities), "a subset that cannot be"
    if len(probabilities) > 1:
        observed = [counts.get(s, 0) for s in probabilities]
        expected = np.array(list(probabilities.values())) * len(drawn)
        assert chisquare(observed, expected).pvalue > 1e-3


def test_subsets_of_complete_rows_are_those_of_the_paper():
    probabilities = {
        tuple(s): {3: 0.343, 2: 0.147, 1: 0.063}[sum(s)] / 0.973 for s in PATTERNS[1:].tolist()
    }
    assert math.isclose(sum(probabilities.values()), 1)
    agree(kept("paper")[-1], probabilities)


@pytest.mark.parametrize("row", range(1, 8))
def test_subsets_of_rows_that_lack_modalities(row):
    """Drawn as independent coins over what the row has, given that something of it stays."""
    has = PATTERNS[row]
    weights = {}
    for subset in PATTERNS:
        if subset.any() and not (subset & ~has).any():
            masked = has.sum() - subset.sum()
            weights[tuple(subset.tolist())] = 0.7 ** subset.sum() * 0.3**masked
    total = 1 - 0.3 ** has.sum()
    agree(kept("paper")[row], {s: w / total for s, w in weights.items()})


def test_never_nothing_of_something():
    np.testing.assert_array_equal(kept("paper").any(-1), np.tile(PATTERNS.any(-1)[:, None], ROWS))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_other_rates(rate):
    drawn = keep_modalities(jax.random.key(1), np.ones((3000, 3), bool), rate)
    left = 1 - rate**3
    agree(
        np.asarray(drawn),
        {
            tuple(s): p / left
            for s in PATTERNS[1:].tolist()
            if (p := (1 - rate) ** sum(s) * rate ** (3 - sum(s))) > 0
        },
    )


def test_released_masking():
    """Text never stays; image goes with 0.3, audio with 0.3, neither with 0.4; the last one stays."""
    drawn = kept("released")
    text_only, image_only, audio_only = [
        PATTERNS.tolist().index(p) for p in np.eye(3, dtype=bool).tolist()
    ]
    both = [PATTERNS.tolist().index([t, True, True]) for t in (False, True)]
    for row in both:
        agree(
            drawn[row],
            {(False, False, True): 0.3, (False, True, False): 0.3, (False, True, True): 0.4},
        )
    assert not drawn[text_only].any() and not drawn[..., 0].any()
    assert drawn[image_only, :, 1].all() and drawn[audio_only, :, 2].all()


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
        masks[m][:used] & has[:, i : i + 1] & keep[:, i : i + 1] for i, m in enumerate(LENGTHS)
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
    assert loss.metrics["accuracy_without_text"] == (np.dot(right, blind), sum(blind))


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
