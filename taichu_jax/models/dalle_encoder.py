"""The encoder of DALL-E's published dVAE (arXiv 2102.12092), the source of BEiT's and FLAVA's codes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

GROUPS = 4  # between them the grid shrinks to half
EDGE = 0.1  # pixels are put into [0.1, 0.9], where the logit-Laplace density has no poles


class DalleBlock(nn.Module):
    """skip(x) + gain * four convolutions, each after a ReLU; three have a quarter of the width."""

    features: int
    gain: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), name="skip")(x)
        for i in (1, 2, 3):
            y = nn.Conv(self.features // 4, (3, 3), name=f"conv_{i}")(nn.relu(y))
        y = nn.Conv(self.features, (1, 1), name="conv_4")(nn.relu(y))
        return x + self.gain * y


class DalleEncoder(nn.Module):
    """Pictures to codes; there is no way back, so nothing can be drawn with it.

    Attributes:
      entries: number of codes.
      width: channels of the first group; later ones have 2, 4 and 8 times as many.
      blocks: of each group.
    """

    entries: int = 8192
    width: int = 256
    blocks: int = 2

    @property
    def shrink(self) -> int:
        """Pixels per code."""
        return 2 ** (GROUPS - 1)

    def codes(self, images: jax.Array) -> jax.Array:
        """int32 [B, H / 8, W / 8]."""
        return self(images).argmax(-1).astype(jnp.int32)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of the codes, float32 [B, H / 8, W / 8, entries], of images [B, H, W, 3] in [0, 1]."""
        if images.shape[1] % self.shrink or images.shape[2] % self.shrink:
            raise ValueError(f"images of {images.shape[1:3]} pixels do not shrink by {self.shrink}")
        gain = 1 / (GROUPS * self.blocks) ** 2
        x = nn.Conv(self.width, (7, 7), name="input")((1 - 2 * EDGE) * images + EDGE)
        for group in range(GROUPS):
            for block in range(self.blocks):
                name = f"group_{group + 1}_block_{block + 1}"
                x = DalleBlock(self.width * 2**group, gain, name=name)(x)
            if group < GROUPS - 1:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Conv(self.entries, (1, 1), name="output")(nn.relu(x)).astype(jnp.float32)
