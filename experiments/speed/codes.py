"""Codes of pictures without a codebook, which neither side of FLAVA's step runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class PixelCodes(nn.Module):
    """Stands in for an image tokeniser: a patch's code is the red of its first pixel, times `entries`.

    Attributes:
      entries: number of codes.
      patch: side of a patch in pixels.
    """

    entries: int
    patch: int

    @nn.compact
    def codes(self, images: jax.Array) -> jax.Array:
        """int32 [B, H / patch, W / patch] of images [B, H, W, 3] in [0, 1]."""
        scale = self.param("scale", nn.initializers.constant(self.entries), ())
        red = images[:, :: self.patch, :: self.patch, 0]
        return jnp.clip((red * scale).astype(jnp.int32), 0, self.entries - 1)
