"""Gated relative position bias of WavLM (arXiv 2110.13900, section III-A), on T5's buckets.

    score_ij += d_(i-j) (1 + u + (1 - u) s r),    u, r = sigmoid(gates of token i)

d is a table by bucket of distance and by head, shared by all blocks; every block has its own gates and
its own s, one number per head. The gates read the block's input, a head's share of its channels, as in
the authors' code (the paper's formula has the query there); they are the same for all heads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.models.layers import Dense


def distance_buckets(length: int, count: int = 320, farthest: int = 800) -> np.ndarray:
    """int [length, length], the bucket of key j seen from query i (arXiv 1910.10683).

    Half of the buckets are for keys behind the query, in each half the first half for single distances;
    the rest grow with the logarithm of the distance up to `farthest`, and the last has all beyond.
    """
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    half, exact = count // 2, count // 4
    distance = np.abs(offset)
    growth = np.log(np.maximum(distance, 1) / exact) / np.log(farthest / exact)
    far = np.minimum(exact + np.floor(growth * (half - exact)), half - 1).astype(np.int64)
    return np.where(distance < exact, distance, far) + half * (offset > 0)


class RelativePosition(nn.Module):
    """The table d: float32 [heads, N, N] for N tokens.

    Attributes:
      buckets, farthest: 320 and 800 in the paper.
    """

    heads: int
    buckets: int = 320
    farthest: int = 800

    @nn.compact
    def __call__(self, length: int) -> jax.Array:
        table = self.param(
            "relative_position_embedding",
            nn.initializers.glorot_normal(),
            (self.buckets, self.heads),
        )
        chosen = table[distance_buckets(length, self.buckets, self.farthest)]
        return chosen.astype(jnp.float32).transpose(2, 0, 1)


class PositionGate(nn.Module):
    """1 + u + (1 - u) s r: float32 [B, heads, N, 1] of a block's input x [B, N, D]."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (self.heads,)).astype(jnp.float32)
        parts = x.reshape(*x.shape[:2], self.heads, x.shape[-1] // self.heads)
        gates = jax.nn.sigmoid(Dense(2, name="gates")(parts).astype(jnp.float32))
        update, reset = gates[..., 0], gates[..., 1]
        factor = 1.0 + update + (1.0 - update) * scale * reset
        return factor.transpose(0, 2, 1)[..., None]
