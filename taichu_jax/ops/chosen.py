"""The chosen positions of every row, gathered: heads over large vocabularies read them alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gather_chosen(
    chosen: jax.Array, most: int, *arrays: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """(chosen [B, most], arrays [B, most, ...]): the chosen positions of a row first, in their order.

    What a row has beyond them is not chosen.

    Args:
      chosen: bool [B, N], at most `most` of a row; any more are left out.
      arrays: [B, N] or [B, N, D].
    """
    where = jnp.argsort(~chosen, axis=-1, stable=True)[:, :most]

    def taken(x):
        index = where.reshape(*where.shape, *(1,) * (x.ndim - 2))
        return jnp.take_along_axis(x, index, axis=1)

    return taken(chosen), tuple(map(taken, arrays))
