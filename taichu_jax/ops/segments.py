"""Stretches of equal length from random places of padded rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def random_starts(rng: jax.Array, lengths: jax.Array, size: int) -> jax.Array:
    """int32 [B]: where `size` positions begin, uniform over all places inside the first `lengths` [B].

    0 in rows that are shorter.
    """
    return jax.random.randint(rng, lengths.shape, 0, jnp.maximum(lengths - size, 0) + 1)


def segment(x: jax.Array, start: jax.Array, size: int, beyond: float = 0.0) -> jax.Array:
    """x[b, start[b] : start[b] + size] of x [B, T, ...]; `beyond` where x has no such position."""
    index = start[:, None] + jnp.arange(size)
    inside = (index >= 0) & (index < x.shape[1])
    shape = (*index.shape, *(1,) * (x.ndim - 2))
    index = jnp.clip(index, 0, x.shape[1] - 1).reshape(shape)
    return jnp.where(inside.reshape(shape), jnp.take_along_axis(x, index, axis=1), beyond)
