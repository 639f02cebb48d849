"""Grids at another size: linear and cubic interpolation without a low-pass filter.

`jax.image.resize` filters before it shrinks, and its cubic has another constant; published vision
transformers were used with what PyTorch's `interpolate` computes (align_corners=False, antialias=False),
which this is. Both axes are products with fixed matrices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

CUBIC = -0.75  # the constant of Keys' kernel (1981) there; -0.5 in `jax.image.resize`


def weights(new: int, old: int, kind: str) -> np.ndarray:
    """float32 [new, old]: what every new point takes of the old ones; rows sum to 1.

    Points are the middles of equal cells. Beyond the ends the last point goes on.

    Args:
      kind: 'linear' or 'cubic'.
    """
    place = (np.arange(new) + 0.5) * (old / new) - 0.5
    if kind == "linear":
        place = np.maximum(place, 0.0)
    first = np.floor(place).astype(int)
    rest = place - first
    if kind == "linear":
        taps = {0: 1 - rest, 1: rest}
    else:
        taps = {offset: _keys(np.abs(rest - offset)) for offset in (-1, 0, 1, 2)}
    result = np.zeros((new, old))
    for offset, share in taps.items():
        np.add.at(result, (np.arange(new), np.clip(first + offset, 0, old - 1)), share)
    return result.astype(np.float32)


def resampled(grid: jax.Array, rows: int, columns: int, kind: str) -> jax.Array:
    """float32 [rows, columns, D] of a grid [R, C, D]."""
    down = weights(rows, grid.shape[0], kind)
    across = weights(columns, grid.shape[1], kind)
    half = jnp.einsum("ri,ijd->rjd", down, grid.astype(jnp.float32))
    return jnp.einsum("cj,rjd->rcd", across, half)


def _keys(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    a, x = CUBIC, distance
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
