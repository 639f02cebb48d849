"""Relative position bias between the patches of a picture (BEiT, arXiv 2106.08254; Swin, 2103.14030).

    score_ij += t[dy, dx]      for patches i and j, dy rows and dx columns apart

t is a table by distance and by head, for all blocks or for every one its own. A class token has three
entries more: from it to any patch, from any patch to it, and to itself.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.ops.resample import resampled


class Grid(NamedTuple):
    """Where the patches of a picture are.

    Attributes:
      usual: rows and columns of patches that the table was made for.
      here: rows and columns of this picture.
      cls: a class token goes before the patches.
    """

    usual: tuple[int, int]
    here: tuple[int, int]
    cls: bool


def entries(rows: int, columns: int, cls: bool) -> np.ndarray:
    """int [N, N], which entry of the table is for query i and key j.

    Distances come in the order of the query's row, then its column, relative to the key's: first those
    farthest above and to the left. The class token's three entries are the last.
    """
    y, x = np.divmod(np.arange(rows * columns), columns)
    dy = y[:, None] - y + rows - 1
    dx = x[:, None] - x + columns - 1
    found = dy * (2 * columns - 1) + dx
    if not cls:
        return found
    count = (2 * rows - 1) * (2 * columns - 1)
    found = np.pad(found, ((1, 0), (1, 0)))
    found[0], found[:, 0], found[0, 0] = count, count + 1, count + 2
    return found


class GridBias(nn.Module):
    """The bias of the scores, float32 [heads, N, N].

    For a picture of another size than usual the table is interpolated, linearly along both axes.
    """

    heads: int
    grid: Grid

    @nn.compact
    def __call__(self) -> jax.Array:
        (rows, columns), here, cls = self.grid
        shape = (2 * rows - 1, 2 * columns - 1)
        count = shape[0] * shape[1]
        table = self.param(
            "relative_position_embedding",
            nn.initializers.zeros,
            (count + 3 * cls, self.heads),
        ).astype(jnp.float32)
        if here != (rows, columns):
            new = (2 * here[0] - 1, 2 * here[1] - 1)
            between = resampled(table[:count].reshape(*shape, self.heads), *new, "linear")
            table = jnp.concatenate([between.reshape(-1, self.heads), table[count:]])
        return table[entries(*here, cls)].transpose(2, 0, 1)
