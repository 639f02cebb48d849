"""Whole modalities hidden: the exact distributions of what stays, for each that can be written."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from taichu_jax.errors import UserError
from taichu_jax.objectives.multimodal.modality_masking import (
    HIDE,
    ModalityMasking,
    keep_as_released,
    keep_modalities,
)

PATTERNS = np.array(list(itertools.product([False, True], repeat=3)))  # rows with 0 to 3 modalities
ROWS = 12_000  # of every pattern


@functools.cache
def kept(masking, own=0, hide=HIDE):
    """bool [pattern, ROWS, 3]: what stays of rows that have text, image, audio as in PATTERNS."""
    released = functools.partial(keep_as_released, own=own, hide=hide)
    keep = {"paper": keep_modalities, "released": released}[masking]
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


@pytest.mark.parametrize(("own", "hide"), [(0, HIDE), (1, HIDE), (2, HIDE), (2, (0.5, 0.2))])
def test_released_masking(own, hide):
    """What is written never stays; the others go with 0.3 each, none with 0.4; the last stays."""
    drawn = kept("released", own, hide)
    first, second = (i for i in range(3) if i != own)

    def only(*modalities):
        return tuple(i in modalities for i in range(3))

    for row, has in enumerate(PATTERNS):
        if has[first] and has[second]:
            either = {
                only(second): hide[0],
                only(first): hide[1],
                only(first, second): 1 - sum(hide),
            }
            agree(drawn[row], either)
        else:
            kept_of_one = tuple((has & (np.arange(3) != own)).tolist())
            agree(drawn[row], {kept_of_one: 1.0})


def test_unknown_masking():
    with pytest.raises(UserError, match="masking='relased'; did you mean 'released'"):
        ModalityMasking(own="image", masking="relased")


@pytest.mark.parametrize("hide", [(0.7, 0.4), (-0.1, 0.3), (0.3,)])
def test_shares_that_are_none(hide):
    with pytest.raises(
        UserError, match=r"hide=\(.*must be two probabilities with a sum of at most 1"
    ):
        ModalityMasking(own="image", hide=hide)
