"""From lengths to masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def within(lengths: jax.Array, size: int) -> jax.Array:
    """bool [B, size]: the first `lengths` [B] positions of every row."""
    return jnp.arange(size) < lengths[:, None]


def zero_beyond(x: jax.Array, mask: jax.Array) -> jax.Array:
    """x [B, N, ...] where mask [B, N] is true, 0 elsewhere, even where x is not finite."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0)
