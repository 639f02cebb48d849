"""Normalisation without parameters, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def over_time(x: jax.Array, mask: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Every channel of every example of x [B, N, D] to mean 0 and variance 1 over its real steps.

    Instance normalisation (arXiv 1607.08022). What is behind the end is left out of the statistics and
    has no meaning in the result. Variances are the biased ones, as in PyTorch.

    Args:
      mask: bool [B, N], the real steps.
    """
    x = x.astype(jnp.float32)
    real = mask[..., None].astype(jnp.float32)
    count = jnp.maximum(real.sum(1, keepdims=True), 1.0)
    centred = x - (x * real).sum(1, keepdims=True) / count
    variance = (jnp.square(centred) * real).sum(1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + epsilon)


def over_features(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Every vector of x [..., D] to mean 0 and variance 1 (layer normalisation)."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)


def unit(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """Every vector of x [..., D] to length 1; its gradient is finite at 0."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + epsilon)
