"""A distance between pictures by what a network makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from taichu_jax.ops.normalise import unit


def feature_distance(layers: Sequence[jax.Array], others: Sequence[jax.Array]) -> jax.Array:
    """float32 [B]: |u - v|^2 of states of length 1, averaged over places and layers.

    LPIPS (arXiv 1801.03924, equation 1) with all channels' weights 1, as its authors' baselines.

    Args:
      layers, others: hidden states [B, N, D] of the same layers for two pictures.
    """
    distances = [
        jnp.square(unit(a.astype(jnp.float32)) - unit(b.astype(jnp.float32))).sum(-1).mean(-1)
        for a, b in zip(layers, others, strict=True)
    ]
    return jnp.stack(distances).mean(0)
