"""Small networks on top of encoders."""

from __future__ import annotations

import jax
from flax import linen as nn

from taichu_jax.models.layers import Dense, LayerNorm, gelu


class Projection(nn.Module):
    """Into another space: linear if `hidden` is 0, else Dense, norm, GELU, Dense.

    Attributes:
      features: output width.
      hidden: units between; 0 for a linear map without bias (CLIP).
    """

    features: int
    hidden: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.hidden:
            return Dense(self.features, use_bias=False, name="out")(x)
        x = gelu(LayerNorm(name="norm")(Dense(self.hidden, name="up")(x)))
        return Dense(self.features, name="out")(x)
