"""Greedy and beam decoding against all paths and all texts of tiny cases."""

import itertools

import numpy as np
import pytest

from taichu_jax.evals.decoding.ctc import BLANK, beam_search, greedy
from taichu_jax.ops.vocabulary import SEP

LABELS, STATES, VOCAB = (6, 7), 4, 8


def scores(seed):
    """log p [T, V] of the blank and two labels; the other ids are impossible."""
    p = np.full((STATES, VOCAB), 1e-30)
    p[:, [BLANK, *LABELS]] = np.random.default_rng(seed).dirichlet([0.7] * 3, STATES)
    return np.log(p)


def merged(path):
    return tuple(i for i, _ in itertools.groupby(path) if i != BLANK)


def all_texts(log_p):
    """{text: log p} by adding up every path."""
    texts = {}
    for path in itertools.product((BLANK, *LABELS), repeat=STATES):
        value = sum(log_p[t, i] for t, i in enumerate(path))
        texts[merged(path)] = np.logaddexp(texts.get(merged(path), -np.inf), value)
    return texts


def bigrams(seed):
    rng = np.random.default_rng(seed)
    table = rng.dirichlet([1.0] * 3, 3)

    def scorer(prefix):
        values = np.full(VOCAB, -np.inf)
        values[[*LABELS, SEP]] = np.log(table[LABELS.index(prefix[-1]) if prefix else 2])
        return values

    return scorer


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_exact(seed):
    log_p = scores(seed)
    expected = all_texts(log_p)
    found = dict(beam_search(log_p, beam=1000, least=-20.0))
    assert found.keys() == expected.keys()
    for text, value in expected.items():
        assert found[text] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_with_a_language_model_is_exact(seed):
    log_p, scorer, weight, bonus = scores(seed), bigrams(seed), 0.8, 0.3
    expected = {}
    for text, value in all_texts(log_p).items():
        prior = sum(scorer(text[:i])[label] for i, label in enumerate(text)) + scorer(text)[SEP]
        expected[text] = value + weight * prior + bonus * len(text)
    options = {"scorer": scorer, "weight": weight, "bonus": bonus, "least": -20.0}
    found = beam_search(log_p, beam=1000, **options)
    for text, value in found:
        assert value == pytest.approx(expected[text], abs=1e-6)
    assert found[0][0] == max(expected, key=expected.get)
    values = [value for _, value in found]
    assert values == sorted(values, reverse=True)


def test_the_likeliest_text_is_not_the_likeliest_path():
    p = np.full((2, VOCAB), 1e-30)
    p[:, BLANK], p[:, 6] = 0.6, 0.4  # all blank: 0.36; but 6: 0.4 0.4 + 2 0.6 0.4 = 0.64
    assert greedy(np.log(p)) == []
    text, value = beam_search(np.log(p), beam=2)[0]
    assert text == (6,) and value == pytest.approx(np.log(0.64))


def test_greedy_merges_repeats_and_drops_blanks():
    for seed in range(5):
        log_p = scores(seed)
        assert tuple(greedy(log_p)) == merged(log_p.argmax(-1).tolist())
    path = [6, 6, BLANK, 6, 7, 7, BLANK, BLANK]
    assert greedy(np.eye(VOCAB)[path]) == [6, 6, 7]
    assert greedy(np.zeros((0, VOCAB))) == []
    assert beam_search(np.zeros((0, VOCAB))) == [((), 0.0)]


def test_a_narrow_beam_keeps_so_many_texts():
    assert len(beam_search(scores(0), beam=3)) == 3
