"""CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726, section 3 and equation 6), for one reference each.

With h_w(s) how often the n-gram w is in a sentence s, and N references,

    g_w(s)   = h_w(s) ln(N / max(1, references that have w))
    score_n  = sum_w min(g_w(c), g_w(r)) g_w(r) / (|g(c)| |g(r)|) * exp(-(len c - len r)^2 / (2 * 6^2))
    score    = 10 * mean of score_n over n = 1 .. 4

A sentence of fewer than n words has no score_n: 0. The formula stands here because pycocoevalcap, the
authors' code, comes with Java programs and a compiled package; tests compare with what it gives.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

LONGEST, SIGMA = 4, 6.0  # n-grams; words by which lengths may differ

Sentence = Sequence[str]


def cider_d(references: Sequence[Sentence], written: Sequence[Sentence]) -> list[float]:
    """The score of every sentence, 0 to 10, against the reference of the same number.

    An n-gram that all references have counts nothing; so one reference alone gives 0.
    """
    known = [_counts(reference) for reference in references]
    frequency = collections.Counter(ngram for counts in known for ngram in counts)

    def weights(counts: collections.Counter) -> dict[Sentence, float]:
        return {w: n * math.log(len(known) / max(1, frequency[w])) for w, n in counts.items()}

    scores = []
    for reference, counts, sentence in zip(references, known, written, strict=True):
        right, made = weights(counts), weights(_counts(sentence))
        penalty = math.exp(-((len(sentence) - len(reference)) ** 2) / (2 * SIGMA**2))
        shares = [_cosine(right, made, n) for n in range(1, LONGEST + 1)]
        scores.append(10.0 * penalty * sum(shares) / LONGEST)
    return scores


def _counts(sentence: Sentence) -> collections.Counter:
    return collections.Counter(
        tuple(sentence[i : i + n])
        for n in range(1, LONGEST + 1)
        for i in range(len(sentence) - n + 1)
    )


def _cosine(right: dict, made: dict, n: int) -> float:
    """Of the weights of n-grams, those made clipped at those that are right."""
    norms = [math.sqrt(sum(v**2 for w, v in x.items() if len(w) == n)) for x in (right, made)]
    both = sum(min(v, right[w]) * right[w] for w, v in made.items() if len(w) == n and w in right)
    return both / (norms[0] * norms[1]) if all(norms) else 0.0
