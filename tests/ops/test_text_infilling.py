"""BART's noise: what is kept, what is replaced, and how often."""

from __future__ import annotations

import itertools
from math import exp, factorial

import jax
import numpy as np
import pytest

from taichu_jax.ops.text_infilling import infill, permute_sentences, poisson

MASK, SIZE, ROWS = 1, 16, 3000


def rows(*lengths):
    """(tokens, mask); the token at place i is 10 + i, padding is 0."""
    mask = np.arange(SIZE) < np.array(lengths)[:, None]
    return np.where(mask, 10 + np.arange(SIZE), 0).astype(np.int32), mask


@pytest.fixture(scope="module")
def noisy():
    """(lengths, noisy tokens, mask) of many rows, and the lengths of spans that were drawn for them."""
    lengths = np.random.default_rng(0).integers(0, SIZE + 1, ROWS)
    key = jax.random.key(1)
    tokens, mask = rows(*lengths)
    found, real = infill(key, tokens, mask, mask_token=MASK)
    drawn = poisson(jax.random.split(key)[0], (ROWS, SIZE + 6), 3.0)
    return lengths, np.array(found), np.array(real), np.array(drawn)


def budget_of(length):
    inner = max(length - 2, 0)
    return -(-3 * inner // 10)


def test_poisson():
    for mean in (0.5, 3.0):
        draws = np.array(poisson(jax.random.key(0), (40_000,), mean))
        for k in range(9):
            p = exp(-mean) * mean**k / factorial(k)
            assert abs((draws == k).mean() - p) < 4.5 * np.sqrt(p * (1 - p) / 40_000) + 1e-6
        assert abs(draws.mean() - mean) < 4.5 * np.sqrt(mean / 40_000)


def test_what_is_replaced(noisy):
    """Exactly 30 % of what is between the ends; the rest stays, in its order."""
    for length, tokens, real, _ in zip(*noisy, strict=True):
        count = real.sum()
        assert real[:count].all() and not tokens[count:].any()
        kept = tokens[:count][tokens[:count] != MASK]
        assert len(kept) == length - budget_of(length)
        assert (np.diff(kept) > 0).all()
        if length >= 2:
            assert tokens[0] == 10 and tokens[count - 1] == 9 + length


def test_one_mask_for_each_span(noisy):
    """As many as spans were needed for the budget, of those that were drawn, or as there is room for."""
    insertions = 0
    for length, tokens, _, drawn in zip(*noisy, strict=True):
        left, spans, inserted = budget_of(length), 0, 0
        hidden = left
        for span in drawn:
            if left <= 0:
                break
            left, spans, inserted = left - min(span, left), spans + 1, inserted + (span == 0)
        room = SIZE - (length - hidden + spans - inserted)
        expected = spans - inserted + min(inserted, room)
        assert (tokens == MASK).sum() == expected
        insertions += inserted
    assert insertions > 100


def test_every_arrangement_is_as_likely():
    """Two of four tokens: the chance of each kind of noise, in closed form."""
    tokens, mask = rows(*[6] * ROWS)
    found = np.array(infill(jax.random.key(3), tokens, mask, mask_token=MASK)[0])
    masks = (found == MASK).sum(1)
    p0, p1 = exp(-3), 3 * exp(-3)
    one, two = 1 - p0 - p1, p1 * (1 - p0) + p0 * (1 - p0 - p1)
    for count, p in ((1, one), (2, two)):
        assert abs((masks == count).mean() - p) < 4.5 * np.sqrt(p * (1 - p) / ROWS)
    single = found[masks == 1]
    shares = [(single[:, place] == MASK).mean() for place in (1, 2, 3)]
    assert np.abs(np.array(shares) - 1 / 3).max() < 4.5 * np.sqrt(2 / 9 / len(single))
    # Two spans of one token each, or one of nothing and one of two: 6 places for the pair of masks.
    double = found[masks == 2]
    pairs = list(itertools.combinations(range(1, 5), 2))
    shares = np.array([(double[:, list(pair)] == MASK).all(1).mean() for pair in pairs])
    assert np.abs(shares - 1 / 6).max() < 4.5 * np.sqrt(5 / 36 / len(double))


def test_rows_that_are_full_grow_no_longer():
    """Short spans, hence many insertions: those without room are left out, and nothing else is."""
    tokens, mask = rows(*[SIZE] * 200)
    found, real = infill(jax.random.key(4), tokens, mask, mask_token=MASK, mean=0.3)
    kept = np.array(found > MASK).sum(1)
    np.testing.assert_array_equal(kept, SIZE - 5)
    assert np.array(real).sum(1).max() == SIZE
    np.testing.assert_array_equal(np.array(found)[:, 0], 10)
    last = np.array(found)[np.arange(200), np.array(real).sum(1) - 1]
    np.testing.assert_array_equal(last, 9 + SIZE)


def test_sentences_change_places():
    tokens = np.tile(np.array([[7, 8, 9, 20, 30, 31, 0, 0]], np.int32), (ROWS, 1))
    segments = np.tile(np.array([[1, 1, 1, 2, 3, 3, 0, 0]], np.int32), (ROWS, 1))
    found = np.array(permute_sentences(jax.random.key(0), tokens, segments))
    sentences = ([7, 8, 9], [20], [30, 31])
    shares = []
    for order in itertools.permutations(range(3)):
        row = [*(token for i in order for token in sentences[i]), 0, 0]
        shares.append((found == row).all(1).mean())
    assert sum(shares) == pytest.approx(1)
    assert np.abs(np.array(shares) - 1 / 6).max() < 4.5 * np.sqrt(5 / 36 / ROWS)
