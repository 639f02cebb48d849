"""The transformer that every model here shares (arXiv 1706.03762, pre-norm)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.experts import AUXILIARY, Experts, Mixture
from taichu_jax.models.layers import Dense, Dropout, LayerNorm, gelu
from taichu_jax.models.relative_position import PositionGate, RelativePosition
from taichu_jax.models.stack import REMAT, Stack
from taichu_jax.ops.constrain import BATCH, constrain

__all__ = ["Attention", "Block", "FeedForward", "Stack", "Transformer"]


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

        def split(y, positions):
            y = y.reshape(*y.shape[:2], self.heads, width // self.heads)
            return constrain(y, BATCH, positions, "tensor", None)

        # Each device keeps its own queries and gathers the keys and values of all positions.
        query = split(Dense(width, name="query")(x), "sequence")
        key = split(Dense(width, name="key")(memory), None)
        value = split(Dense(width, name="value")(memory), None)
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
        hidden = constrain(gelu(Dense(self.hidden, name="up")(x)), BATCH, "sequence", "tensor")
        hidden = Dropout(self.dropout)(hidden)
        return Dense(x.shape[-1], name="down")(hidden)


class Block(nn.Module):
    """Self-attention, optionally attention over a memory, feed-forward; each x + f(norm(x)).

    Attributes:
      mixture: experts in place of the feed-forward layer.
      causal: whether the mask is; only the mixture asks.
    """

    heads: int
    hidden: int
    dropout: float = 0.0
    cross: bool = False
    causal: bool = False
    mixture: Experts | None = None

    @nn.compact
    def __call__(self, x, mask, memory=None, memory_mask=None, distances=None, real=None):
        y = LayerNorm(name="attention_norm")(x)
        y = Attention(self.heads, self.dropout, name="attention")(y, y, mask, distances)
        x = x + Dropout(self.dropout)(y)
        if self.cross:
            y = LayerNorm(name="cross_norm")(x)
            y = Attention(self.heads, self.dropout, name="cross")(y, memory, memory_mask)
            x = x + Dropout(self.dropout)(y)
        y = LayerNorm(name="feed_forward_norm")(x)
        if self.mixture is None:
            y = FeedForward(self.hidden, self.dropout, name="feed_forward")(y)
        else:
            mixture = Mixture(self.mixture, self.hidden, self.dropout, self.causal, name="experts")
            y = mixture(y, real)
        return constrain(x + Dropout(self.dropout)(y), BATCH, "sequence", None)


class Period(nn.Module):
    """Blocks one after the other, as often as their kinds repeat: the body of a scanned stack.

    Attributes:
      make: makes a block, given its `mixture` and `name`.
      mixtures: of each block.
    """

    make: Callable[..., nn.Module]
    mixtures: tuple[Experts | None, ...]

    @nn.compact
    def __call__(self, x, *inputs):
        """Returns the last block's states and those of all."""
        states = []
        for i, mixture in enumerate(self.mixtures):
            x = self.make(mixture=mixture, name=f"block_{i}")(x, *inputs)
            states.append(x)
        return x, tuple(states)


class Transformer(nn.Module):
    """A stack of blocks and a final layer norm.

    Attributes:
      depth, heads: number of blocks and of heads.
      expansion: hidden units of the feed-forward layer, as a multiple of the width.
      causal: a position sees itself and what is before it.
      cross: blocks also attend over a memory.
      shared_layers: all layers use the parameters of one block (ALBERT, arXiv 1909.11942).
      relative_position: 'none', or 'gated' for WavLM's bias of the scores (relative_position.py).
      stack: how the blocks are made. Unscanned parameters are `block_0`, `block_1`, ...; scanned ones
        `blocks`, or where every e-th block has experts `blocks/block_0` to `blocks/block_(e-1)`, of
        which entry p is block p e + i; shared ones are `block_0` either way.
    """

    depth: int
    heads: int
    expansion: float = 4.0
    dropout: float = 0.0
    causal: bool = False
    cross: bool = False
    shared_layers: bool = False
    relative_position: str = "none"
    stack: Stack = Stack()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        real: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Returns the normalised states [B, N, D] and the states before and after every block.

        Args:
          x: [B, N, D].
          mask: bool [B, N], true where x is real; or [B, N, N], true where a row may see a column.
          memory: [B, M, D] with memory_mask bool [B, M], for `cross`.
          real: bool [B, N], the positions that experts take; by default those that any row may see.
        """
        if real is None:
            real = mask if mask.ndim == 2 else mask.any(1)
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
        x = constrain(x, BATCH, "sequence", None)
        inputs = (see, memory, memory_mask, distances, real)
        run = self._scanned if self.stack.scan else self._looped
        last, states = run(x, inputs, self._make(int(self.expansion * x.shape[-1])))
        return LayerNorm(name="norm")(last), (x, *states)

    @nn.nowrap
    def _make(self, hidden: int) -> Callable[..., nn.Module]:
        """Makes a block, given its `mixture` and `name`."""
        kind = Block
        if self.stack.remat != "none":
            # A loop's own structure keeps the compiler from undoing it.
            once = not self.stack.scan
            kind = nn.remat(Block, policy=REMAT[self.stack.remat], prevent_cse=once)
        return functools.partial(kind, self.heads, hidden, self.dropout, self.cross, self.causal)

    @nn.nowrap
    def _mixtures(self) -> tuple[Experts | None, ...]:
        """Of the blocks of one period; the last has the experts."""
        period = self.stack.period(self.depth, self.shared_layers)
        return (None,) * (period - 1) + (self.stack.experts,)

    @nn.nowrap
    def _looped(self, x, inputs, make):
        mixtures, states = self._mixtures(), []
        for i in range(self.depth):
            if i == 0 or not self.shared_layers:
                block = make(mixture=mixtures[i % len(mixtures)], name=f"block_{i}")
            x = block(x, *inputs)
            states.append(x)
        return x, states

    @nn.nowrap
    def _scanned(self, x, inputs, make):
        mixtures, shared = self._mixtures(), self.shared_layers
        if len(mixtures) == 1:
            unit = make(mixture=mixtures[0], name="block_0" if shared else "blocks")
        else:
            unit = Period(make, mixtures, name="blocks")

        def body(unit, x, inputs):
            if len(mixtures) == 1:
                x = unit(x, *inputs)
                return x, (x,)
            return unit(x, *inputs)

        scan = nn.scan(
            body,
            variable_axes={AUXILIARY: 0} if shared else {"params": 0, AUXILIARY: 0},
            variable_broadcast="params" if shared else False,
            split_rngs={"params": not shared, "dropout": True},
            in_axes=nn.broadcast,
            length=self.depth // len(mixtures),
        )
        x, states = scan(unit, x, inputs)  # of each block of the period: [periods, B, N, D]
        return x, [state[i] for i in range(self.depth // len(mixtures)) for state in states]
