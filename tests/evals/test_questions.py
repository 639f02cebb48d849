"""Questions to a judge, on embeddings made by hand."""

import numpy as np
import pytest

from taichu_jax.evals.intervals import wilson
from taichu_jax.evals.judge import Items
from taichu_jax.evals.questions import Questions, in_turn

THINGS, LANGUAGES = 40, 2
COUNT = THINGS * LANGUAGES


def items(seed=0, concepts=None):
    """Every thing in two languages; all words differ."""
    rng = np.random.default_rng(seed)
    concepts = np.tile(np.arange(THINGS), LANGUAGES) if concepts is None else concepts
    fields = {
        "concept": concepts,
        "lang": np.repeat(np.arange(LANGUAGES), THINGS),
        "text": np.arange(COUNT)[:, None],
        "has_text": np.ones(COUNT, bool),
    }
    words = rng.normal(size=(COUNT, 16))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    keys = [(i % THINGS, str(i // THINGS)) for i in range(COUNT)]
    return Items(keys, fields, {"text": words.astype(np.float32)})


def test_scores_of_perfect_queries_of_shuffled_ones_and_of_silence():
    known, asked = items(), np.arange(COUNT)
    questions = Questions(known, asked)
    perfect = known.embeddings["text"]
    table = questions.table({"real": perfect}, {"audio": perfect, "image": 0 * perfect}, "text")
    assert list(table) == ["chance", "real", "audio", "image", "audio shuffled", "image shuffled"]
    assert table["real"] == table["audio"]
    assert (table["audio"]["R@1"], table["audio"]["median"]) == (100, 1)
    chance = table["chance"]
    assert [chance[k] for k in ("R@1", "R@5", "R@10")] == pytest.approx([2.5, 12.5, 25])
    assert chance["median"] == 20.5
    # What says nothing ties with everything, and gets what guessing gets.
    assert table["image"] == chance == table["image shuffled"]
    # What was made for another item never finds this one first, and is at chance otherwise.
    assert table["audio shuffled"]["R@1"] == 0
    low, high = wilson(table["audio shuffled"]["R@10"] / 100, COUNT)
    assert low < 0.25 < high
    assert table["audio"]["interval"]["R@1"] == [100 * x for x in wilson(1.0, THINGS)]


def test_ranks_are_those_of_a_loop_over_candidates_of_the_language():
    known, asked = items(1), np.array([3, 41, 77, 12])
    made = np.random.default_rng(2).normal(size=(4, 16)) + known.embeddings["text"][asked]
    ranks = []
    for query, item in zip(made, asked, strict=True):
        own = [j for j in range(COUNT) if j // THINGS == item // THINGS]
        scores = {j: float(query @ known.embeddings["text"][j]) for j in own}
        ranks.append(1 + sum(score > scores[item] for score in scores.values()))
    got = Questions(known, asked).scores(made, "text")
    assert got["mean"] == pytest.approx(np.mean(ranks))
    assert got["median"] == np.median(ranks)
    assert got["R@5"] == pytest.approx(100 * np.mean(np.array(ranks) <= 5))


def test_items_of_one_concept_are_all_right_and_never_the_others():
    concepts = np.tile(np.arange(THINGS) // 2, LANGUAGES)
    questions = Questions(items(concepts=concepts), np.array([0, 1, 2, 40]))
    assert questions.right.sum(1).tolist() == [2, 2, 2, 2]
    assert questions.trials == 2
    assert questions.others.tolist() == [2, 2, 0, 2]  # of the fourth's language there is none
    alone = Questions(items(concepts=concepts), np.array([0, 1]))
    assert alone.others.tolist() == [-1, -1]
    assert "text shuffled" not in alone.table({}, {"text": np.ones((2, 16))}, "text")


def test_items_come_in_turn_each_thing_once_before_any_comes_twice():
    known = items().fields
    picked = in_turn(known["concept"], known["lang"], 10)
    assert len(set(known["concept"][picked].tolist())) == 10
    assert known["lang"][picked].tolist() == [0, 1] * 5
    assert known["concept"][picked].tolist() == np.linspace(0, 39, 10).astype(int).tolist()
    more = in_turn(known["concept"], known["lang"], 60)
    assert len(set(more.tolist())) == 60
    assert set(known["concept"][more[:40]].tolist()) == set(range(THINGS))
    assert sorted(in_turn(known["concept"], known["lang"], 999).tolist()) == list(range(COUNT))
    lone = in_turn(np.array([0, 1, 2]), np.array([0, 0, 1]), 3)  # a thing in one language only
    assert sorted(lone.tolist()) == [0, 1, 2]


def test_wilson_holds_the_share_and_solves_its_equation():
    for share, count in ((0.0, 80), (0.1, 80), (0.5, 7), (1.0, 20)):
        low, high = wilson(share, count)
        assert 0 <= low <= share <= high <= 1 and high > low
        for end in (low, high):  # |p - end| = z sqrt(end (1 - end) / n) at both ends
            off = 1.959964 * np.sqrt(end * (1 - end) / count)
            assert abs(share - end) == pytest.approx(off, abs=1e-7)
