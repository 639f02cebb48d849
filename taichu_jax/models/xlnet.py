"""XLNet (arXiv 1906.08237): a text encoder that can predict tokens from any set of others.

    h_i <- Attention(query h_i, seen: h_j for j that i is predicted from, and i itself)    content
    g_i <- Attention(query g_i, seen: h_j for j that i is predicted from)                  query stream

Both streams use the same weights (eq. 3 and 4), so the query stream is just more rows of one stack, which
look and are not looked at. g begins as one learnt vector: what it knows is where it stands.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taichu_jax.models.cache import Cache, Recent, empty
from taichu_jax.models.layers import Dropout, Encoded, product
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.models.transformer_xl import Places

BLOCKS = Style(
    norm="post",
    final_norm=False,
    epsilon=1e-12,
    query_bias=False,
    key_bias=False,
    value_bias=False,
    out_bias=False,
)


@struct.dataclass
class Memory:
    """What is kept of earlier tokens, in place of Transformer-XL's hidden states.

    The weights stand still while a text is read, so the keys and values of these states are kept. No
    gradient is to pass through it.

    Attributes:
      blocks: keys and values of the last tokens.
      mask: bool [B, M], which of them are there.
    """

    blocks: Cache
    mask: jax.Array


class XLNet(nn.Module):
    """Token embeddings and a post-norm transformer with relative positions; logits through the embedding.

    There is no longest input.

    Attributes:
      vocab_size: number of token ids.
      segments: whether attention is told which tokens are of the same type as the one that looks.
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
    """

    vocab_size: int
    width: int = 128
    depth: int = 2
    heads: int = 4
    expansion: float = 4.0
    dropout: float = 0.0
    segments: bool = False
    stack: Stack = Stack()
    style: Style = BLOCKS

    def setup(self):
        if self.style.first_norm:
            raise ValueError("style.first_norm=True: XLNet has none; valid: False")
        normal = nn.initializers.normal(0.02)
        self.token_embedding = self.param("token_embedding", normal, (self.vocab_size, self.width))
        self.mask_token = self.param("mask_token", normal, (self.width,))
        self.head_bias = self.param("head_bias", nn.initializers.zeros, (self.vocab_size,))
        self.drop = Dropout(self.dropout)
        self.transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            relative_position="transformer_xl",
            stack=self.stack,
            style=self.style,
        )

    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
        types: jax.Array | None = None,
    ) -> Encoded:
        """Encodes token ids; every token sees all others.

        Args:
          tokens: int32 [B, L].
          mask: bool [B, L], true where there is a token.
          positions: not used: distances within a sentence are the same wherever it stands in its row.
          segments: int32 [B, L]; tokens see only tokens of their own segment, for packed rows.
          types: int32 [B, L], with `segments`; by default all are the same.
        """
        del positions
        batch, length = tokens.shape
        see = jnp.broadcast_to(mask[:, None], (batch, length, length))
        if segments is not None:
            see &= segments[:, :, None] == segments[:, None, :]
        differs = self._differs(types, types, (batch, length, length))
        places = dataclasses.replace(Places.in_order(length, length), differs=differs)
        x = self.drop(self.token_embedding[tokens])
        x, layers = self.transformer(x, see, real=mask, places=places)
        return Encoded(tokens=self.drop(x), mask=mask, layers=layers)

    def two_streams(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        see: jax.Array,
        targets: jax.Array,
        types: jax.Array | None = None,
    ) -> tuple[Encoded, Encoded]:
        """The content of all L tokens, and the query stream at P of them.

        Args:
          tokens: int32 [B, L].
          mask: bool [B, L], true where there is a token.
          see: bool [B, L, L], true where a row's token is predicted from a column's.
          targets: int32 [B, P], the positions to predict at.
          types: int32 [B, L], with `segments`.

        Returns:
          (content [B, L, D], query stream [B, P, D]); a mask of the latter says whether its target is
          there.
        """
        batch, length = tokens.shape
        count = targets.shape[1]

        def at_targets(x):
            index = targets.reshape(*targets.shape, *(1,) * (x.ndim - 2))
            return jnp.take_along_axis(x, index, axis=1)

        query = jnp.broadcast_to(self.mask_token, (batch, count, self.width))
        x = jnp.concatenate([self.drop(self.token_embedding[tokens]), self.drop(query)], 1)
        see = see & mask[:, None]
        itself = jnp.eye(length, dtype=bool)
        see = jnp.concatenate([see | itself, at_targets(see)], 1)
        rows = jnp.broadcast_to(jnp.arange(length), (batch, length))
        all_types = None if types is None else jnp.concatenate([types, at_targets(types)], 1)
        places = Places(
            rows=jnp.concatenate([rows, targets], 1),
            differs=self._differs(all_types, types, see.shape),
            content=length,
        )
        there = jnp.concatenate([mask, at_targets(mask)], 1)
        x, layers = self.transformer(x, see, real=there, places=places)
        x = self.drop(x)
        content = Encoded(
            tokens=x[:, :length],
            mask=mask,
            layers=tuple(layer[:, :length] for layer in layers),
        )
        predicted = Encoded(
            tokens=x[:, length:],
            mask=there[:, length:],
            layers=tuple(layer[:, length:] for layer in layers),
        )
        return content, predicted

    @nn.nowrap
    def start(self, batch: int, length: int) -> Memory:
        """An empty memory of the last `length` tokens, for `further`."""
        stack = Transformer(self.depth, self.heads, stack=self.stack)
        blocks = empty(
            Recent,
            batch=batch,
            length=length,
            width=self.width,
            heads=self.heads,
            stacks=stack.cache_stacks(),
        )
        return Memory(blocks, jnp.zeros((batch, length), bool))

    def further(
        self, tokens: jax.Array, mask: jax.Array, memory: Memory, types: jax.Array | None = None
    ) -> tuple[Encoded, Memory]:
        """Encodes tokens that follow those in memory, and remembers them too.

        Every token sees all others, and what is remembered; tokens in memory count as of type 0.
        """
        batch, length = tokens.shape
        there = jnp.concatenate([memory.mask, mask], 1)
        see = jnp.broadcast_to(there[:, None], (batch, length, there.shape[1]))
        earlier = jnp.zeros(memory.mask.shape, jnp.int32)
        seen_types = None if types is None else jnp.concatenate([earlier, types], 1)
        differs = self._differs(types, seen_types, see.shape)
        places = dataclasses.replace(Places.in_order(length, there.shape[1]), differs=differs)
        x = self.drop(self.token_embedding[tokens])
        x, layers, blocks = self.transformer(
            x, see, real=mask, cache=memory.blocks, at=0, places=places
        )
        encoded = Encoded(tokens=self.drop(x), mask=mask, layers=layers)
        return encoded, Memory(blocks, there[:, length:])

    def logits(self, states: jax.Array) -> jax.Array:
        """Vocabulary scores [..., V] of states [..., D]: the embedding and a bias."""
        return product(states, self.token_embedding.T) + self.head_bias.astype(states.dtype)

    def _differs(self, rows, seen, shape):
        """bool [B, N, M], true where a row's type is not that of what it sees; None without segments."""
        if not self.segments:
            if rows is not None:
                raise ValueError("this encoder knows no types of tokens: segments=False")
            return None
        if rows is None:
            return jnp.zeros(shape, bool)
        return rows[:, :, None] != seen[:, None, :]
