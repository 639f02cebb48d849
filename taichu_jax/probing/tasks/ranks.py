"""Average precision of rankings, and what a random order gets."""

from __future__ import annotations

import numpy as np


def mean_average_precision(similarity: np.ndarray, right: np.ndarray) -> float:
    """In percent, over the queries that have a right answer; ties in the order of the candidates.

    AP = mean over the right answers of (right ones up to there) / (their rank).

    Args:
      similarity: [Q, C].
      right: bool [Q, C].
    """
    asked = right.any(1)
    order = np.argsort(-similarity[asked], axis=1, kind="stable")
    hits = np.take_along_axis(right[asked], order, 1)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    return 100.0 * float(((precision * hits).sum(1) / hits.sum(1)).mean())


def chance_average_precision(right: np.ndarray) -> float:
    """What random orders get on average, exactly, in percent.

    With R right answers among C, E[AP] = (H + (R - 1) / (C - 1) (C - H)) / C, H = 1 + 1/2 + ... + 1/C:
    a candidate at rank k is right with R / C, and each one before it then with (R - 1) / (C - 1).
    """
    asked = right[right.any(1)]
    count = asked.shape[1]
    if count == 1:
        return 100.0
    harmonic = (1 / np.arange(1, count + 1)).sum()
    rest = (asked.sum(1) - 1) / (count - 1)
    return 100.0 * float(((harmonic + rest * (count - harmonic)) / count).mean())
