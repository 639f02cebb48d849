"""Negatives drawn from the other chosen positions of the same row, or of a group of rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sample_others(rng: jax.Array, chosen: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """For every chosen position, `count` others of its row, uniformly and with replacement.

    Args:
      chosen: bool [B, N].

    Returns:
      int32 [B, N, count], positions in the row; and bool [B, N], true where they can be used: at chosen
      positions of rows that have at least two.
    """
    number = chosen.sum(-1)[:, None, None]
    order = jnp.argsort(~chosen, axis=-1, stable=True)  # the chosen positions come first
    own = (jnp.cumsum(chosen, axis=-1) - 1)[..., None]
    others = jnp.maximum(number - 1, 1)
    draw = jax.random.uniform(rng, (*chosen.shape, count))
    rank = jnp.minimum(jnp.floor(draw * others).astype(jnp.int32), others - 1)
    rank = jnp.minimum(rank + (rank >= own), chosen.shape[1] - 1)
    picked = jnp.take_along_axis(order[:, None], rank, axis=-1)
    return picked, chosen & (number[..., 0] > 1)


def sample_in_groups(
    rng: jax.Array, chosen: jax.Array, groups: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """For every chosen position, `count` others of the rows of its group, with replacement.

    Args:
      chosen: bool [B, N].
      groups: int32 [B]; rows of the same number are one group.

    Returns:
      int32 [B, N, count], positions in the batch, row * N + column; and bool [B, N], true where they can
      be used: at chosen positions of groups that have at least two.
    """
    rows, columns = chosen.shape
    each = chosen.sum(-1)
    number = jnp.where(groups[:, None] == groups, each, 0).sum(-1)[:, None, None]
    before = jnp.where(groups[:, None] > groups, each, 0).sum(-1)[:, None, None]
    # The chosen positions come first, group by group.
    order = jnp.lexsort((jnp.repeat(groups, columns), ~chosen.reshape(-1)))
    own = jnp.argsort(order).reshape(rows, columns, 1) - before
    others = jnp.maximum(number - 1, 1)
    draw = jax.random.uniform(rng, (rows, columns, count))
    rank = jnp.minimum(jnp.floor(draw * others).astype(jnp.int32), others - 1)
    rank = rank + (rank >= own)
    picked = order[jnp.minimum(before + rank, rows * columns - 1)]
    return picked.astype(jnp.int32), chosen & (number[..., 0] > 1)
