"""FLAVA's multimodal encoder (arXiv 2112.04482, section 3.1) over a picture's and a text's states."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Encoded
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer


class PairFusion(nn.Module):
    """[CLS], the picture's states and the text's, each through a linear map, in one transformer.

    It adds neither positions nor kinds, which the two encoders' states know. As in the authors' code
    these are the states behind the encoders' last blocks (the last of `Encoded.layers`), before their
    norms.

    Attributes:
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    expansion: float = 4.0
    dropout: float = 0.0
    stack: Stack = Stack()
    style: Style = Style()

    @nn.compact
    def __call__(self, image: Encoded, text: Encoded) -> Encoded:
        """Returns [B, 1 + N + L, D]: [CLS], the picture's N states with its class token, the text's L."""
        states = image.layers[-1]
        cls = self.param("cls_token", nn.initializers.normal(0.02), (self.width,))
        cls = jnp.broadcast_to(cls.astype(states.dtype), (len(states), 1, self.width))
        parts = [
            cls,
            Dense(self.width, name="image_input")(states),
            Dense(self.width, name="text_input")(text.layers[-1]),
        ]
        mask = jnp.concatenate([jnp.ones(cls.shape[:2], bool), image.mask, text.mask], axis=1)
        transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            stack=self.stack,
            style=self.style,
            name="transformer",
        )
        x, layers = transformer(jnp.concatenate(parts, axis=1), mask)
        return Encoded(tokens=x, mask=mask, layers=layers)
