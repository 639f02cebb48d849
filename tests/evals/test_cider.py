"""CIDEr-D: numbers of the authors' code, and a case by hand."""

import math

import pytest

from taichu_jax.evals.cider import cider_d

REFERENCES = (
    "a red apple on a table",
    "a black dog runs in the snow",
    "the big red bus",
    "a dog and a cat",
    "snow on a big tree",
)
WRITTEN = (
    "a red apple",
    "a dog runs in the white snow",
    "the big red bus",
    "snow on a table and a cat and a cat",
    "trees",
)


def _split(sentences):
    return [sentence.split() for sentence in sentences]


def test_scores_are_those_of_the_authors_code():
    # pycocoevalcap 1.2: CiderScorer(n=4, sigma=6.0), compute_score()[1]
    expected = [4.174733057, 4.748686386, 10.0, 1.581339169, 0.0]
    assert cider_d(_split(REFERENCES), _split(WRITTEN)) == pytest.approx(expected, abs=1e-8)


def test_two_sentences_by_hand():
    # 'b' is in both references and weighs nothing; 'a' once instead of twice is clipped, 'ab' weighs
    # the same; one word less.
    references, written = _split(["a a b", "c b"]), _split(["a b", ""])
    one = (min(1, 2) * 2) / (1 * 2)  # words: only a counts, (1) against (2)
    two = 1 / (1 * math.sqrt(2))  # of 'a a' and 'a b' one is right
    penalty = math.exp(-1 / 72)
    expected = 10 * penalty * (one + two) / 4
    assert cider_d(references, written) == pytest.approx([expected, 0])
    assert cider_d(_split(["a b c d"]), _split(["a b c d"])) == [0]  # nothing to weigh by
