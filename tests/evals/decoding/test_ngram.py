"""n-grams: probabilities sum to one, and are Kneser and Ney's, written anew."""

import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.evals.decoding.ngram import NGram
from taichu_jax.ops.vocabulary import CLS, SEP, UNK

TEXTS = [[6, 7, 6, 8], [6, 7], [7, 7, 6], [8], [6, 7, 8, 8], [9, 6]]
VOCAB = 12


def kneser_ney(word, context, order):
    """P(word | context) by the formula, counting anew each time."""
    padded = [[CLS] * (order - 1) + text + [SEP] for text in TEXTS]

    def windows(size):
        """Distinct or repeated n-grams as they count at this order."""
        top = [tuple(t[i : i + order]) for t in padded for i in range(len(t) - order + 1)]
        for _ in range(order - size):
            top = [gram[1:] for gram in dict.fromkeys(top)]
        return top

    def probability(word, context):
        grams = windows(len(context) + 1)
        counts = [grams.count(gram) for gram in dict.fromkeys(grams)]
        once, twice = counts.count(1), counts.count(2)
        discount = once / (once + 2 * twice) if once else 0.0
        lower = 1 / (VOCAB - UNK + 1) if not context else probability(word, context[1:])
        here = [gram for gram in grams if gram[:-1] == context]
        if not here:
            return lower
        own = max(here.count((*context, word)) - discount, 0) / len(here)
        return own + discount * len(set(here)) / len(here) * lower

    return probability(word, tuple(context))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_is_the_formula(order):
    model = NGram(TEXTS, VOCAB, order)
    for prefix in [(), (6,), (6, 7), (7, 7, 6), (9, 9), (6, 10, 7), (8, 8)]:
        found = np.exp(model(prefix))
        context = ([CLS] * (order - 1) + list(prefix))[len(prefix) :]
        for word in (SEP, UNK, 6, 7, 8, 9, 11):
            assert found[word] == pytest.approx(kneser_ney(word, context, order), rel=1e-9), word
        assert found.sum() == pytest.approx(1.0)
        assert (found[:SEP] == 0).all() and found[SEP + 1 : UNK].sum() == 0


def test_longer_contexts_tell_more():
    texts = [[6, 7, 8], [9, 7, 10]] * 20
    assert np.exp(NGram(texts, VOCAB, 3)((6, 7)))[8] > 0.9
    assert np.exp(NGram(texts, VOCAB, 2)((6, 7)))[8] == pytest.approx(0.5, abs=0.05)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="order=0"):
        NGram(TEXTS, VOCAB, 0)
    with pytest.raises(UserError, match="at least one text"):
        NGram([], VOCAB)
