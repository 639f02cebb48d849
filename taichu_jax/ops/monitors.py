"""Collapse monitors, as (sum, count) metrics."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def feature_std(features: jax.Array, where: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Standard deviation over examples of L2-normalised features, times sqrt(width).

    About 1 for features spread evenly over the sphere, 0 for collapsed ones (SimSiam, arXiv
    2011.10566, section 4.1).

    Args:
      features: [..., D].
      where: bool [...], the vectors that count; all by default.
    """
    flat = features.reshape(-1, features.shape[-1]).astype(jnp.float32)
    flat = flat / jnp.maximum(jnp.linalg.norm(flat, axis=-1, keepdims=True), 1e-6)
    weight = jnp.ones(flat.shape[:1]) if where is None else where.reshape(-1).astype(jnp.float32)
    count = jnp.maximum(weight.sum(), 1.0)
    mean = (flat * weight[:, None]).sum(0) / count
    variance = (jnp.square(flat - mean) * weight[:, None]).sum(0) / count
    return jnp.sqrt(variance).mean() * flat.shape[-1] ** 0.5, jnp.ones(())


def perplexity(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
    """exp(entropy) of code probabilities [..., V]: how many codes are in use; mean over the rest."""
    p = probabilities.astype(jnp.float32)
    entropy = -(p * jnp.log(jnp.maximum(p, 1e-9))).sum(-1)
    return jnp.exp(entropy).sum(), jnp.asarray(entropy.size, jnp.float32)
