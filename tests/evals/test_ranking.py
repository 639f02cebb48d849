"""Ranks against hand cases, a loop over all orders, and simulation by exhaustive tie breaking."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taichu_jax.evals import ranking


def brute_force(similarity, right, candidates, at):
    """Every order of every query that sorts the similarities, each as likely; small cases only."""
    found = []
    for scores, good, allowed in zip(similarity, right, candidates, strict=True):
        items = [i for i in range(len(scores)) if allowed[i]]
        orders = [
            order
            for order in itertools.permutations(items)
            if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
        ]
        found.append([1 + min(order.index(i) for i in items if good[i]) for order in orders])
    recall = {f"R@{k}": 100 * np.mean([np.mean(np.array(r) <= k) for r in found]) for k in at}
    return recall | {"mean": np.mean([np.mean(r) for r in found])}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_all_orders_of_the_ties(seed):
    rng = np.random.default_rng(seed)
    queries, items = rng.integers(1, 4), rng.integers(1, 6)
    similarity = rng.integers(0, 3, (queries, items)).astype(float)
    right = rng.random((queries, items)) < 0.4
    candidates = rng.random((queries, items)) < 0.8
    first = rng.integers(0, items, queries)
    right[np.arange(queries), first] = candidates[np.arange(queries), first] = True
    got = ranking.ranking(similarity, right, candidates, at=(1, 2, 5))
    expected = brute_force(similarity, right, candidates, (1, 2, 5))
    for name, value in expected.items():
        assert got[name] == pytest.approx(value), name


def test_without_ties_it_is_the_place_in_the_sorted_list():
    rng = np.random.default_rng(0)
    similarity, right = rng.normal(size=(30, 30)), np.eye(30, dtype=bool)
    order = np.argsort(-similarity, axis=1)
    ranks = np.array([list(row).index(i) + 1 for i, row in enumerate(order)])
    got = ranking.ranking(similarity, right)
    assert got["median"] == np.median(ranks)
    assert got["mean"] == pytest.approx(ranks.mean())
    for k in ranking.AT:
        assert got[f"R@{k}"] == pytest.approx(100 * (ranks <= k).mean())


def test_hand_case_with_ties_and_two_right_answers():
    similarity = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]])
    right = np.array([[False, True, True, False, False]])
    # One above; then two right and one wrong in random order: rank 2 in 2 of 3 orders, else 3.
    got = ranking.ranking(similarity, right, at=(1, 2, 3))
    assert got["R@1"] == 0
    assert got["R@2"] == pytest.approx(200 / 3)
    assert got["R@3"] == pytest.approx(100)
    assert got["mean"] == pytest.approx(2 + 1 / 3)
    assert got["median"] == 2


def test_a_collapsed_model_gets_chance_and_chance_is_exact():
    right = np.eye(80, dtype=bool)
    chance = ranking.chance(right)
    assert ranking.ranking(np.full((80, 80), 0.7), right) == chance
    assert chance["R@1"] == pytest.approx(100 / 80)
    assert chance["R@10"] == pytest.approx(1000 / 80)
    assert chance["median"] == 40.5
    assert chance["mean"] == pytest.approx(40.5)
    two = right | np.roll(right, 1, axis=1)
    assert ranking.chance(two)["R@10"] == pytest.approx(100 * (1 - (70 * 69) / (80 * 79)))


def test_not_a_number_ranks_last_and_fewer_candidates_than_k_is_certain():
    right = np.array([[True, False, False]])
    assert ranking.ranking(np.array([[np.nan, 0.1, 0.2]]), right)["mean"] == 3
    assert ranking.ranking(np.full((1, 3), np.nan), right) == ranking.chance(right)
    assert ranking.ranking(np.zeros((1, 3)), right)["R@5"] == 100


def test_no_right_answer_is_refused():
    with pytest.raises(ValueError, match="no right answer"):
        ranking.ranking(np.zeros((1, 2)), np.zeros((1, 2), bool))


def test_average_is_over_groups():
    tables = {"fr": {"R@1": 10.0, "median": 3.0}, "ro": {"R@1": 20.0, "median": 6.0}}
    assert ranking.average(tables) == {"R@1": 15.0, "median": 4.5}
