"""Recall and median rank from a similarity matrix, with ties and several right answers.

A query's rank is that of its best right answer. Candidates that tie are in random order, so a rank is
a distribution: with g wrong candidates above the best right answer, and t wrong and r right ones tied
with it,
    P(rank > g + m) = C(t, m) / C(t + r, m),    E[rank] = g + 1 + t / (r + 1).
With F the distribution function averaged over the queries, R@k is F(k) and the median rank is the
median of F. Without ties these are the usual numbers; a collapsed model, for which everything ties,
gets exactly what chance gets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

AT = (1, 5, 10)


def rank_distributions(
    similarity: np.ndarray, right: np.ndarray, candidates: np.ndarray | None = None
) -> np.ndarray:
    """P(rank <= k) of every query, float64 [Q, C], column k - 1 for k = 1 .. C.

    Args:
      similarity: [Q, C]; what is not a number ranks last.
      right: bool [Q, C], the right answers; every query needs at least one among its candidates.
      candidates: bool [Q, C], who takes part; all by default.

    Raises:
      ValueError: a query has no right answer among its candidates.
    """
    similarity = np.asarray(similarity, np.float64)
    candidates = np.ones(right.shape, bool) if candidates is None else candidates
    right = right & candidates
    if not right.any(axis=1).all():
        raise ValueError("a query has no right answer among its candidates")
    similarity = np.where(np.isnan(similarity), -np.inf, similarity)
    wrong = candidates & ~right
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    above = (wrong & (similarity > best)).sum(axis=1)
    tied_wrong = (wrong & (similarity == best)).sum(axis=1)
    tied_right = (right & (similarity == best)).sum(axis=1)
    return np.stack(
        [
            _distribution(right.shape[1], *counts)
            for counts in zip(above, tied_wrong, tied_right, strict=True)
        ]
    )


def _distribution(candidates: int, above: int, wrong: int, right: int) -> np.ndarray:
    """P(rank <= k), k = 1 .. candidates: the first right one among wrong + right in random order."""
    drawn = np.arange(wrong + 1)  # P(the m-th is wrong too) = (wrong - m) / (wrong + right - m)
    missed = np.cumprod((wrong - drawn) / (wrong + right - drawn))
    result = np.ones(candidates)
    result[:above] = 0.0
    result[above : above + wrong + 1] = 1.0 - missed
    return result


def summary(distributions: np.ndarray, at: tuple[int, ...] = AT) -> dict[str, float]:
    """R@k in percent, median and mean rank, of the rows of `rank_distributions`."""
    share = distributions.mean(axis=0)
    ranks = np.arange(1, share.size + 1)
    # The lower and the upper median, halfway: the convention of numpy.median.
    lower = ranks[np.argmax(share >= 0.5 - 1e-9)]
    upper = ranks[np.argmax(share > 0.5 + 1e-9)]
    result = {f"R@{k}": 100.0 * float(share[min(k, share.size) - 1]) for k in at}
    result["median"] = float(lower + upper) / 2
    result["mean"] = float(1.0 + (1.0 - share).sum())  # E[rank] = sum over k >= 0 of P(rank > k)
    return result


def ranking(
    similarity: np.ndarray,
    right: np.ndarray,
    candidates: np.ndarray | None = None,
    at: tuple[int, ...] = AT,
) -> dict[str, float]:
    """`summary` of a similarity matrix; arguments as in `rank_distributions`."""
    return summary(rank_distributions(similarity, right, candidates), at)


def chance(
    right: np.ndarray, candidates: np.ndarray | None = None, at: tuple[int, ...] = AT
) -> dict[str, float]:
    """What guessing gets, exactly: every candidate ties."""
    return ranking(np.zeros(right.shape), right, candidates, at)


def average(tables: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over groups (languages) of each number."""
    names = next(iter(tables.values()))
    return {name: float(np.mean([table[name] for table in tables.values()])) for name in names}
