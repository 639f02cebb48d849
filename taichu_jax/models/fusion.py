"""The single-stream cross-modal encoder of OPT (arXiv 2107.00249, eq. 1): M = CrossEncoder([T; V; A])."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout, Encoded, LayerNorm
from taichu_jax.models.transformer import Stack, Transformer

MODALITIES = ("text", "image", "audio")  # the order in the stream; type embeddings 0, 1, 2


class CrossModalEncoder(nn.Module):
    """[CLS] and the tokens of any one, two or three modalities in one transformer.

    An absent modality is a row whose token mask is false throughout, or a modality that is not given;
    the two give the same states, because nothing attends to masked tokens.

    Attributes:
      lengths: the most tokens of text, image and audio, for the learned positions.
      stack: how the blocks are made (models/stack.py).
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    lengths: tuple[int, int, int] = (32, 64, 128)
    expansion: float = 4.0
    dropout: float = 0.0
    stack: Stack = Stack()

    @nn.compact
    def __call__(
        self,
        text: Encoded | None = None,
        image: Encoded | None = None,
        audio: Encoded | None = None,
    ) -> Encoded:
        """Returns [B, 1 + N, D]: [CLS], then the tokens in the order text, image, audio."""
        given = [x for x in (text, image, audio) if x is not None]
        if not given:
            raise ValueError("the cross-modal encoder needs at least one modality")
        batch, dtype = given[0].tokens.shape[0], given[0].tokens.dtype
        normal = nn.initializers.normal(0.02)
        # Created whatever is given, so that parameters do not depend on the first call.
        cls = self.param("cls_token", normal, (self.width,)).astype(dtype)
        kinds = self.param("type_embedding", normal, (len(MODALITIES), self.width)).astype(dtype)
        tokens = [jnp.broadcast_to(cls, (batch, 1, self.width))]
        masks = [jnp.ones((batch, 1), bool)]
        for i, (name, part) in enumerate(zip(MODALITIES, (text, image, audio), strict=True)):
            shape = (self.lengths[i], self.width)
            position = self.param(f"{name}_position", normal, shape).astype(dtype)
            if part is None:
                continue
            length = part.tokens.shape[1]
            if length > self.lengths[i]:
                raise ValueError(f"{length} {name} tokens, but lengths={tuple(self.lengths)}")
            x = Dense(self.width, name=f"{name}_input")(part.tokens) + position[:length] + kinds[i]
            tokens.append(Dropout(self.dropout)(LayerNorm(name=f"{name}_norm")(x)))
            masks.append(part.mask)
        x, mask = jnp.concatenate(tokens, 1), jnp.concatenate(masks, 1)
        transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            stack=self.stack,
            name="transformer",
        )
        x, layers = transformer(x, mask)
        return Encoded(tokens=x, mask=mask, layers=layers)


def split(fused: jax.Array, **lengths: int) -> dict[str, jax.Array]:
    """The states [B, 1 + N, D] of a fusion taken apart: {"cls": [B, D], "text": [B, L, D], ...}.

    Args:
      lengths: the token counts that went in, by modality.
    """
    parts, start = {"cls": fused[:, 0]}, 1
    for name in MODALITIES:
        if name in lengths:
            parts[name] = fused[:, start : start + lengths[name]]
            start += lengths[name]
    return parts
