"""How much what is made from one input differs, beside how much real things differ.

    diversity = mean over inputs of d(samples of the input) / d(real things)

where d is the mean distance over all pairs. 0: always the same; 1: as different from each other as the
real things of different items, so it says nothing of the input.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Distance = Callable[[Any, Any], float]


def mean_distance(things: Sequence[Any], distance: Distance) -> float:
    """Over all pairs of two or more things."""
    return float(np.mean([distance(a, b) for a, b in itertools.combinations(things, 2)]))


def diversity(samples: Sequence[Sequence[Any]], real: Sequence[Any], distance: Distance) -> float:
    """See the module's docstring; not a number where there is nothing to compare.

    Args:
      samples: things made from each input.
      real: things of different items.
    """
    several = [group for group in samples if len(group) > 1]
    if not several or len(real) < 2:
        return float("nan")
    between = mean_distance(real, distance)
    return float(np.mean([mean_distance(g, distance) for g in several])) / max(between, 1e-12)


def distinct(codes: Sequence[np.ndarray]) -> float:
    """The share of different ones among arrays of ids, in percent."""
    if not codes:
        return float("nan")
    return 100.0 * len({(row.shape, row.tobytes()) for row in codes}) / len(codes)


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 - a . b of vectors of norm 1."""
    return 1.0 - float(a @ b)


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared difference; of spectrograms [F, bands] over the frames that both have."""
    frames = min(len(a), len(b))
    return float(np.square(a[:frames].astype(np.float64) - b[:frames]).mean()) if frames else 0.0
