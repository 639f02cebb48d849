"""Negatives drawn from the other chosen positions of the same row."""

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
