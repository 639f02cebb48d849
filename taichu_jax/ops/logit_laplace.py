"""A density of pixels between 0 and 1: the logit-Laplace distribution (DALL-E, arXiv 2102.12092, A.3).

    f(x | mu, b) = 1 / (2 b x (1 - x)) exp(-|logit(x) - mu| / b)

Pixels are squeezed from [0, 1] into [0.1, 0.9] first, where the density stays finite.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

MARGIN = 0.1  # the paper's epsilon


def squeezed(images: jax.Array) -> jax.Array:
    """Pixels of [0, 1] in [0.1, 0.9]."""
    return (1 - 2 * MARGIN) * images + MARGIN


def unsqueezed(values: jax.Array) -> jax.Array:
    """The inverse of `squeezed`, limited to [0, 1]."""
    return jnp.clip((values - MARGIN) / (1 - 2 * MARGIN), 0.0, 1.0)


def negative_log_density(images: jax.Array, location: jax.Array, log_scale: jax.Array) -> jax.Array:
    """-ln f of every pixel value of `images` in [0, 1], after squeezing; float32, of their shape.

    Args:
      location, log_scale: mu and ln b, of the same shape.
    """
    x = squeezed(images.astype(jnp.float32))
    log_scale = log_scale.astype(jnp.float32)
    distance = jnp.abs(jnp.log(x) - jnp.log1p(-x) - location.astype(jnp.float32))
    return distance * jnp.exp(-log_scale) + log_scale + math.log(2.0) + jnp.log(x) + jnp.log1p(-x)


def expected(location: jax.Array) -> jax.Array:
    """The picture that DALL-E shows for mu: sigmoid(mu) without the squeezing, in [0, 1]."""
    return unsqueezed(jax.nn.sigmoid(location.astype(jnp.float32)))
