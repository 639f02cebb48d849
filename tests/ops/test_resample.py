"""Interpolation against its formula, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from taichu_jax.ops.resample import resampled, weights


def keys(x):
    """Keys' kernel with the constant -3/4."""
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    if x < 2:
        return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
    return 0.0


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize(("new", "old"), [(7, 4), (3, 8), (5, 5), (2, 1), (1, 6)])
def test_every_weight(kind, new, old):
    expected = np.zeros((new, old))
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        if kind == "linear":
            place = max(place, 0.0)
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            near = max(0.0, 1 - abs(place - tap)) if kind == "linear" else keys(place - tap)
            expected[i, min(max(tap, 0), old - 1)] += near
    found = weights(new, old, kind)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_axes_are_apart():
    grid = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    same = resampled(grid, 3, 4, "cubic")
    np.testing.assert_allclose(same, grid, atol=1e-6)
    found = np.asarray(resampled(grid, 5, 2, "linear"))
    for d in range(2):
        expected = weights(5, 3, "linear") @ grid[..., d] @ weights(2, 4, "linear").T
        np.testing.assert_allclose(found[..., d], expected, atol=1e-5)
