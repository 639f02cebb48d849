"""The transformer that every model here shares (arXiv 1706.03762, pre-norm)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout, LayerNorm, gelu
from taichu_jax.models.relative_position import PositionGate, RelativePosition


class Attention(nn.Module):
    """Multi-head attention of queries x [B, N, D] over memory [B, M, D].

    Attributes:
      heads: number of heads; D must be a multiple of it.
      dropout: on the attention weights.
    """

    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array | None,
        distances: jax.Array | None = None,
    ) -> jax.Array:
        """mask: bool, broadcastable to [B, heads, N, M], true where a query may look.

        distances: float32 [heads, N, M], gated by x and added to the scores (relative_position.py).

        A query that may look nowhere gets the zero vector, never NaN.
        """
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}")

        def split(y):
            return y.reshape(*y.shape[:2], self.heads, width // self.heads)

        query = split(Dense(width, name="query")(x))
        key = split(Dense(width, name="key")(memory))
        value = split(Dense(width, name="value")(memory))
        scores = jnp.einsum("bnhd,bmhd->bhnm", query, key) * (width // self.heads) ** -0.5
        scores = scores.astype(jnp.float32)
        if distances is not None:
            scores += PositionGate(self.heads, name="position_gate")(x) * distances
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1)
        if mask is not None:
            weights = jnp.where(mask, weights, 0.0)
        weights = Dropout(self.dropout)(weights.astype(x.dtype))
        mixed = jnp.einsum("bhnm,bmhd->bnhd", weights, value)
        return Dense(width, name="out")(mixed.reshape(*x.shape[:2], width))


class FeedForward(nn.Module):
    """Dense, GELU, Dense; `hidden` units between."""

    hidden: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = Dropout(self.dropout)(gelu(Dense(self.hidden, name="up")(x)))
        return Dense(x.shape[-1], name="down")(hidden)


class Block(nn.Module):
    """Self-attention, optionally attention over a memory, feed-forward; each x + f(norm(x))."""

    heads: int
    hidden: int
    dropout: float = 0.0
    cross: bool = False

    @nn.compact
    def __call__(self, x, mask, memory=None, memory_mask=None, distances=None):
        y = LayerNorm(name="attention_norm")(x)
        y = Attention(self.heads, self.dropout, name="attention")(y, y, mask, distances)
        x = x + Dropout(self.dropout)(y)
        if self.cross:
            y = LayerNorm(name="cross_norm")(x)
            y = Attention(self.heads, self.dropout, name="cross")(y, memory, memory_mask)
            x = x + Dropout(self.dropout)(y)
        y = LayerNorm(name="feed_forward_norm")(x)
        y = FeedForward(self.hidden, self.dropout, name="feed_forward")(y)
        return x + Dropout(self.dropout)(y)


class Transformer(nn.Module):
    """A stack of blocks and a final layer norm.

    Attributes:
      depth, heads: number of blocks and of heads.
      expansion: hidden units of the feed-forward layer, as a multiple of the width.
      causal: a position sees itself and what is before it.
      cross: blocks also attend over a memory.
      shared_layers: all layers use the parameters of one block (ALBERT, arXiv 1909.11942).
      relative_position: 'none', or 'gated' for WavLM's bias of the scores (relative_position.py).
    """

    depth: int
    heads: int
    expansion: float = 4.0
    dropout: float = 0.0
    causal: bool = False
    cross: bool = False
    shared_layers: bool = False
    relative_position: str = "none"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Returns the normalised states [B, N, D] and the states before and after every block.

        Args:
          x: [B, N, D].
          mask: bool [B, N], true where x is real; or [B, N, N], true where a row may see a column.
          memory: [B, M, D] with memory_mask bool [B, M], for `cross`.
        """
        see = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        if self.causal:
            see = see & jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        if memory_mask is not None:
            memory_mask = memory_mask[:, None, None, :]
        if self.relative_position not in ("none", "gated"):
            raise ValueError(f"relative_position={self.relative_position!r}; valid: none, gated")
        distances = None
        if self.relative_position == "gated":
            distances = RelativePosition(self.heads, name="relative_position")(x.shape[1])
        hidden = int(self.expansion * x.shape[-1])
        layers = [x]
        for i in range(self.depth):
            if i == 0 or not self.shared_layers:
                block = Block(self.heads, hidden, self.dropout, self.cross, name=f"block_{i}")
            x = block(x, see, memory, memory_mask, distances)
            layers.append(x)
        return LayerNorm(name="norm")(x), tuple(layers)
