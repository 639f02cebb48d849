"""Spans, orders and what is seen: the paper's words in loops, and exact chances."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops import factorisation

SIZE, ROWS = 31, 4000


@pytest.fixture(scope="module")
def spans():
    """Many rows, of which some positions may not be chosen, and the keys of the draws."""
    allowed = np.ones((ROWS, SIZE), bool)
    allowed[:, [0, 17]] = False
    key = jax.random.key(5)
    return np.array(factorisation.predicted_spans(key, allowed)), allowed, key


def test_spans_are_those_of_the_stretches(spans):
    """Row by row, from the same draws: a stretch of 6 L tokens, somewhere in it L in a row."""
    found, allowed, key = spans
    of_first, of_others, at, within = jax.random.split(key, 4)
    first = 1 + jax.random.categorical(of_first, np.log(np.arange(1.0, 6)), shape=(ROWS, 1))
    others = jax.random.randint(of_others, (ROWS, 5), 1, 6)
    lengths = np.concatenate([first, others], 1)
    cut = np.array(jax.random.randint(at, (ROWS, 1), 0, jnp.array(6 * lengths[:, :1])))
    offsets = np.array(jax.random.randint(within, (ROWS, 6), 0, jnp.array(5 * lengths + 1)))
    for row in range(200):
        place, expected = -cut[row, 0], np.zeros(SIZE, bool)
        for length, offset in zip(lengths[row], offsets[row], strict=True):
            for i in range(place + offset, place + offset + length):
                if 0 <= i < SIZE:
                    expected[i] = allowed[row, i]
            place += 6 * length
        assert place >= SIZE
        np.testing.assert_array_equal(found[row], expected)


def test_every_token_is_predicted_as_often(spans):
    """One in 6, also at the ends of a row."""
    found, *_ = spans
    share = found.mean(0)
    assert share[0] == share[17] == 0
    rest = np.delete(share, [0, 17])
    assert np.abs(rest - 1 / 6).max() < 4.5 * np.sqrt(1 / 6 * 5 / 6 / ROWS)


def test_no_more_than_there_is_room_for(spans):
    assert spans[0].sum(1).max() <= factorisation.most_predicted(SIZE) == 15
    assert factorisation.most_predicted(4) == 4
    draws = factorisation.predicted_spans(
        jax.random.key(1), np.ones((2000, 9), bool), one_in=2, longest=2
    )
    most = factorisation.most_predicted(9, one_in=2, longest=2)
    assert draws.sum(1).max() <= most


def test_orders_are_as_likely_and_end_with_what_is_predicted():
    count = 6000
    order = np.array(factorisation.random_order(jax.random.key(2), jnp.zeros((count, 3), bool)))
    shares = [(order == p).all(1).mean() for p in itertools.permutations(range(3))]
    assert np.abs(np.array(shares) - 1 / 6).max() < 4.5 * np.sqrt(1 / 6 * 5 / 6 / count)
    predicted = np.random.default_rng(0).uniform(size=(50, 9)) < 0.4
    order = np.array(factorisation.random_order(jax.random.key(2), predicted))
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(9), (50, 1)))
    for places, where in zip(order, predicted, strict=True):
        assert set(places[where]) == set(range(9 - where.sum(), 9))


@pytest.mark.parametrize("context", ["ordered", "open"])
def test_what_is_seen(context):
    draw = np.random.default_rng(0)
    predicted = draw.uniform(size=(4, 6)) < 0.5
    order = np.stack([draw.permutation(6) for _ in range(4)])
    see = factorisation.seen_from(order, predicted, context)
    for b, i, j in np.ndindex(4, 6, 6):
        expected = order[b, j] < order[b, i]
        if context == "open" and not predicted[b, i] and not predicted[b, j]:
            expected = True
        assert see[b, i, j] == expected


def test_first_true():
    where = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 1], [0] * 5], bool)
    places, there = factorisation.first_true(where, 3)
    np.testing.assert_array_equal(there, [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(places[0], [1, 3, 4])
    assert places[1, 0] == 4
