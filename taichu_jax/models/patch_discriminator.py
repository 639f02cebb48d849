"""A discriminator that judges patches of pictures (PatchGAN, arXiv 1611.07004)."""

from __future__ import annotations

import jax
from flax import linen as nn

SLOPE = 0.2  # of the leaky ReLUs


class PatchDiscriminator(nn.Module):
    """Real or drawn, one score for every patch.

    Convolutions of 4 x 4 with stride 2, one per width, then one of stride 1, then the scores. Group norm
    where the paper has batch norm; it sees the whole picture, so a score is not of its patch alone.

    Attributes:
      widths: channels of the convolutions.
      groups: of the group norms; divides all widths but the first.
    """

    widths: tuple[int, ...] = (16, 32)
    groups: int = 8

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Scores [B, h, w], above 0 for real, of pixels [B, H, W, 3] on the scale of `centred`."""
        x = pixels
        for i, width in enumerate(self.widths):
            x = nn.Conv(width, (4, 4), (2, 2), use_bias=i == 0, name=f"shrink_{i}")(x)
            if i:
                x = nn.GroupNorm(self.groups, name=f"norm_{i}")(x)
            x = nn.leaky_relu(x, SLOPE)
        x = nn.Conv(self.widths[-1], (3, 3), use_bias=False, name="wide")(x)
        x = nn.leaky_relu(nn.GroupNorm(self.groups, name="wide_norm")(x), SLOPE)
        return nn.Conv(1, (3, 3), name="scores")(x)[..., 0]
