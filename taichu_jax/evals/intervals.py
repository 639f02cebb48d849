"""How far a share that was counted on few items may be off."""

from __future__ import annotations

import math

NORMAL_95 = 1.959964  # standard deviations that hold 95 % of a normal distribution


def wilson(share: float, count: int, z: float = NORMAL_95) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share of `count` independent trials; shares are 0 to 1.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n): it never leaves 0 to 1, and
    is not empty where nothing or everything was right.
    """
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = ((middle + sign * half) / (1 + z**2 / count) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)
