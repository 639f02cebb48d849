"""The transformer that every model here shares (arXiv 1706.03762); pre-norm unless `style` says else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.attention import Attention
from taichu_jax.models.cache import BlockCache, Cache
from taichu_jax.models.experts import AUXILIARY, Experts, Mixture
from taichu_jax.models.grid_position import Grid, GridBias
from taichu_jax.models.layers import (
    ACTIVATIONS,
    Dense,
    Dropout,
    LayerNorm,
    Weights,
    side_by_side,
)
from taichu_jax.models.relative_position import RelativePosition
from taichu_jax.models.stack import REMAT, Stack
from taichu_jax.models.style import Style
from taichu_jax.models.transformer_xl import Places
from taichu_jax.ops.constrain import BATCH, constrain
from taichu_jax.ops.materialise import gradient_once

__all__ = ["Block", "FeedForward", "Stack", "Transformer"]

RELATIVE = ("none", "gated", "grid", "grid_per_block", "transformer_xl")


class FeedForward(nn.Module):
    """Dense, activation, Dense; `hidden` units between.

    Attributes:
      gated: activation(x `gate`) times x `up` stands for activation(x `up`) (models/style.py).
    """

    hidden: int
    dropout: float = 0.0
    activation: str = "gelu"
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = ACTIVATIONS[self.activation]
        if self.gated:
            layers = (Weights(self.hidden, name=name) for name in ("up", "gate"))
            hidden, gate = side_by_side(x, *layers)
            hidden *= activation(gate)
        else:
            hidden = activation(Dense(self.hidden, name="up")(x))
        hidden = constrain(hidden, BATCH, "sequence", "tensor")
        hidden = Dropout(self.dropout)(hidden)
        return Dense(x.shape[-1], name="down")(hidden)


class Block(nn.Module):
    """Self-attention, optionally attention over a memory, feed-forward; each x + f(norm(x)).

    Attributes:
      mixture: experts in place of the feed-forward layer.
      causal: a position sees itself and what is before it.
      style: models/style.py.
      gated, grid, fused: see `Attention`.
    """

    heads: int
    hidden: int
    dropout: float = 0.0
    cross: bool = False
    causal: bool = False
    mixture: Experts | None = None
    style: Style = Style()
    gated: bool = True
    grid: Grid | None = None
    fused: bool = False

    @nn.compact
    def __call__(
        self, x, mask, memory=None, memory_mask=None, distances=None, real=None, at=None, cache=None
    ):
        """The states; with a `BlockCache` the pair (states, cache), see `Attention`."""
        style = self.style
        own, cross = (None, None) if cache is None else (cache.own, cache.cross)
        y = self._before("attention", x)
        attend = Attention(
            self.heads,
            self.dropout,
            style,
            gated=self.gated,
            grid=self.grid,
            causal=self.causal,
            fused=self.fused,
            name="attention",
        )
        y, own = _pair(attend(y, y, mask, distances, own, at))
        x = self._after("attention", x, y)
        if self.cross:
            y = self._before("cross", x)
            attend = Attention(self.heads, self.dropout, style, fused=self.fused, name="cross")
            y, cross = _pair(attend(y, memory, memory_mask, None, cross, at))
            x = self._after("cross", x, y)
        y = self._before("feed_forward", x)
        if self.mixture is None:
            activation, gated = style.activation, style.gated
            layer = FeedForward(self.hidden, self.dropout, activation, gated, name="feed_forward")
            y = layer(y)
        else:
            if style.activation != "gelu" or style.gated:
                wrong = f"style.activation={style.activation!r}, style.gated={style.gated}"
                raise ValueError(f"{wrong}: experts have 'gelu', not gated")
            mixture = Mixture(self.mixture, self.hidden, self.dropout, self.causal, name="experts")
            y = mixture(y, real)
        x = constrain(self._after("feed_forward", x, y), BATCH, "sequence", None)
        return x if cache is None else (x, BlockCache(own, cross))

    @nn.nowrap
    def _before(self, layer, x):
        """What a layer reads."""
        if self.style.norm == "post":
            return x
        return LayerNorm(self.style.epsilon, name=f"{layer}_norm")(x)

    @nn.nowrap
    def _after(self, layer, x, y):
        """x and what a layer made of it, added up."""
        if self.style.layer_scale:
            start = nn.initializers.constant(self.style.layer_scale)
            y *= self.param(f"{layer}_scale", start, (x.shape[-1],)).astype(y.dtype)
        x = x + Dropout(self.dropout)(y)
        if self.style.norm == "pre":
            return gradient_once(x)
        return LayerNorm(self.style.epsilon, name=f"{layer}_norm")(x)


def _pair(result):
    """(states, cache) of what attention returns, which without a cache is the states alone."""
    return result if isinstance(result, tuple) else (result, None)


class Period(nn.Module):
    """Blocks one after the other, as often as their kinds repeat: the body of a scanned stack.

    Attributes:
      make: makes a block, given its `mixture` and `name`.
      mixtures: of each block.
    """

    make: Callable[..., nn.Module]
    mixtures: tuple[Experts | None, ...]

    @nn.compact
    def __call__(self, x, *inputs, cache=None):
        """Returns the last block's states and those of all; with a cache also the new one."""
        states, new = [], []
        for i, mixture in enumerate(self.mixtures):
            block = self.make(mixture=mixture, name=f"block_{i}")
            x, own = _pair(block(x, *inputs, cache=None if cache is None else cache[i]))
            states.append(x)
            new.append(own)
        return (x, tuple(states)) if cache is None else (x, tuple(states), tuple(new))


class Transformer(nn.Module):
    """A stack of blocks and a final layer norm.

    Attributes:
      depth, heads: number of blocks and of heads.
      expansion: hidden units of the feed-forward layer, as a multiple of the width.
      causal: a position sees itself and what is before it.
      cross: blocks also attend over a memory.
      shared_layers: all layers use the parameters of one block (ALBERT, arXiv 1909.11942).
      relative_position: 'none'; 'gated' for WavLM's bias of the scores (relative_position.py); 'grid'
        for that of patches, one table for all blocks, or 'grid_per_block' (grid_position.py);
        'transformer_xl' for sinusoids of the distances (transformer_xl.py).
      stack: how the blocks are made. Unscanned parameters are `block_0`, `block_1`, ...; scanned ones
        `blocks`, or where every e-th block has experts `blocks/block_0` to `blocks/block_(e-1)`, of
        which entry p is block p e + i; shared ones are `block_0` either way.
      style: what a block computes (models/style.py); `first_norm` is the caller's, before its dropout.
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
    style: Style = Style()

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        real: jax.Array | None = None,
        cache: Cache | None = None,
        at: jax.Array | int = 0,
        places: Places | None = None,
        grid: Grid | None = None,
    ) -> tuple[Any, ...]:
        """Returns the last states [B, N, D], normalised, and the states before and after every block.

        With a cache, x are the positions from `at` on, and the new cache is returned third.

        Args:
          x: [B, N, D].
          mask: bool [B, N], true where x is real; or [B, N, N], true where a row may see a column.
          memory: [B, M, D] with memory_mask bool [B, M], for `cross`.
          real: bool [B, N], the positions that experts take; by default those that any row may see,
            and all with a cache. A position that is alone is never beyond an expert's capacity.
          cache: what earlier calls returned, or `models.cache.empty`. `mask` is then bool [B, N, M]
            over the M positions that attention sees, `causal` or not; with `cross`, memory is given
            in the first call only, memory_mask in each.
          places: with 'transformer_xl', where the rows of x stand; by default one behind the other, the
            last at the last of the M positions that attention sees.
          grid: where the patches are, for the two relative positions that ask for it.
        """
        if real is None and cache is not None:
            real = jnp.ones(x.shape[:2], bool)
        if real is None:
            real = mask if mask.ndim == 2 else mask.any(1)
        see = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        if memory_mask is not None:
            memory_mask = memory_mask[:, None, None, :]
        kind = self.relative_position
        distances: Any = None
        if kind not in RELATIVE:
            raise ValueError(f"relative_position={kind!r}; valid: {', '.join(RELATIVE)}")
        if kind not in ("none", "transformer_xl") and cache is not None:
            raise ValueError(
                f"relative_position={kind!r} has no cache; valid: none, transformer_xl"
            )
        if kind.startswith("grid") and grid is None:
            raise ValueError(f"relative_position={kind!r}: for the patches of pictures only")
        if kind == "gated":
            distances = RelativePosition(self.heads, name="relative_position")(x.shape[1])
        elif kind == "grid" and grid is not None:
            distances = GridBias(self.heads, grid, name="relative_position")()
        elif kind == "transformer_xl":
            distances = Places.in_order(x.shape[1], mask.shape[-1]) if places is None else places
        x = constrain(x, BATCH, "sequence", None)
        inputs = (see, memory, memory_mask, distances, real)
        own_grid = grid if kind == "grid_per_block" else None
        make = self._make(int(self.expansion * x.shape[-1]), cache is None, own_grid)
        if cache is not None:
            further = self._scanned_further if self.stack.scan else self._looped_further
            last, states, new = further(x, (*inputs, jnp.asarray(at)), make, cache)
            return self._normalised(last), (x, *states), new
        run = self._scanned if self.stack.scan else self._looped
        last, states = run(x, inputs, make)
        return self._normalised(last), (x, *states)

    @nn.nowrap
    def _normalised(self, x):
        return LayerNorm(self.style.epsilon, name="norm")(x) if self.style.final_norm else x

    @nn.nowrap
    def cache_stacks(self) -> tuple[int, ...]:
        """How many blocks' keys and values each part of a cache holds, stacked; 0 for one, plain."""
        if not self.stack.scan:
            return (0,) * self.depth
        period = len(self._mixtures())
        return (self.depth // period,) * period

    @nn.nowrap
    def _make(self, hidden: int, remat: bool, grid: Grid | None) -> Callable[..., nn.Module]:
        """Makes a block, given its `mixture` and `name`."""
        kind = Block
        if remat and self.stack.remat != "none":
            # A loop's own structure keeps the compiler from undoing it.
            once = not self.stack.scan
            kind = nn.remat(Block, policy=REMAT[self.stack.remat], prevent_cse=once)
        return functools.partial(
            kind,
            self.heads,
            hidden,
            self.dropout,
            self.cross,
            self.causal,
            style=self.style,
            gated=self.relative_position == "gated",
            grid=grid,
            fused=self.stack.attention == "fused",
        )

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

    @nn.nowrap
    def _looped_further(self, x, inputs, make, cache):
        mixtures, states, new = self._mixtures(), [], []
        for i in range(self.depth):
            if i == 0 or not self.shared_layers:
                block = make(mixture=mixtures[i % len(mixtures)], name=f"block_{i}")
            x, own = block(x, *inputs, cache=cache[i])
            states.append(x)
            new.append(own)
        return x, states, tuple(new)

    @nn.nowrap
    def _scanned_further(self, x, inputs, make, cache):
        mixtures, shared = self._mixtures(), self.shared_layers
        if len(mixtures) == 1:
            unit = make(mixture=mixtures[0], name="block_0" if shared else "blocks")
        else:
            unit = Period(make, mixtures, name="blocks")
        of_memory = inputs[1] is None  # then what is known of it stays as it is

        def body(unit, x, inputs, cache):
            if len(mixtures) == 1:
                x, own = unit(x, *inputs, cache=cache[0])
                states, new = (x,), (own,)
            else:
                x, states, new = unit(x, *inputs, cache=cache)
            return x, (states, tuple(c.replace(cross=None) for c in new) if of_memory else new)

        scan = nn.scan(
            body,
            variable_axes={} if shared else {"params": 0},
            variable_broadcast="params" if shared else False,
            split_rngs={"params": not shared},
            in_axes=(nn.broadcast, 1),
            out_axes=(0, 1),
            length=self.depth // len(mixtures),
        )
        x, (states, new) = scan(unit, x, inputs, cache)
        if of_memory:
            new = tuple(c.replace(cross=old.cross) for c, old in zip(new, cache, strict=True))
        states = [state[i] for i in range(self.depth // len(mixtures)) for state in states]
        return x, states, new
