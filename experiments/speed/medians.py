"""Medians and the interval of their ratio."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000


class Ratio(NamedTuple):
    """The ratio of two medians, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Ratio:
    """median(ours) / median(theirs).

    The interval is the percentile bootstrap (Efron 1979) over turns: what the two sides took in the same
    turn stays together, because other work on the machine slows both.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} times: must be as many, and at least one")
    a, b = np.asarray(ours), np.asarray(theirs)
    turns = np.random.default_rng(seed).integers(len(a), size=(RESAMPLES, len(a)))
    drawn = np.median(a[turns], axis=1) / np.median(b[turns], axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    value = statistics.median(ours) / statistics.median(theirs)
    return Ratio(value, float(low), float(high))


def agree(ours: float, theirs: float, tolerance: float) -> bool:
    """Whether two losses are the same, relative to the larger of 1 and theirs; never with NaN."""
    return bool(abs(ours - theirs) <= tolerance * max(1.0, abs(theirs)))
