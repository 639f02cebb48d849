"""Multi-head attention (arXiv 1706.03762): projections, biases of the scores, cache, mesh."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.grid_position import Grid, GridBias
from taichu_jax.models.layers import Dense, Dropout, Weights, side_by_side
from taichu_jax.models.relative_position import PositionGate
from taichu_jax.models.style import Style
from taichu_jax.models.transformer_xl import Places, PositionScores
from taichu_jax.ops import attention
from taichu_jax.ops.constrain import BATCH, constrain


class Attention(nn.Module):
    """Multi-head attention of queries x [B, N, D] over memory [B, M, D].

    Attributes:
      heads: number of heads; D must be a multiple of it.
      dropout: on the attention weights.
      style: which biases there are.
      gated: `distances` are gated by x before they are added (relative_position.py).
      grid: the scores have a bias of their own by the places of patches (grid_position.py).
      causal: query n sees keys 0 to n; without a cache, whose mask says what is seen.
      fused: see `Stack.attention`.
    """

    heads: int
    dropout: float = 0.0
    style: Style = Style()
    gated: bool = True
    grid: Grid | None = None
    causal: bool = False
    fused: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None,
        mask: jax.Array | None,
        distances: jax.Array | Places | None = None,
        cache: Any = None,
        at: jax.Array | None = None,
    ) -> Any:
        """mask: bool, broadcastable to [B, heads, N, M], true where a query may look.

        distances: float32 [heads, N, M], added to the scores; or where the queries stand, of which the
          first ones alone are looked at (transformer_xl.py).
        cache, at: with a cache (cache.py) the queries look at its M positions, which memory, from
          position `at`, first extends; None for memory if it does not. The result is then the pair
          (states, extended cache).

        A query that may look nowhere gets the zero vector, never NaN.
        """
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not a multiple of heads {self.heads}")

        def split(y, positions):
            y = y.reshape(*y.shape[:2], self.heads, width // self.heads)
            return constrain(y, BATCH, positions, "tensor", None)

        style = self.style
        asked = Weights(width, style.query_bias, name="query")
        told = (
            Weights(width, style.key_bias, name="key"),
            Weights(width, style.value_bias, name="value"),
        )
        seen = distances.content if isinstance(distances, Places) else None
        if memory is not None and seen is not None and seen < memory.shape[1]:
            memory = memory[:, :seen]
        if memory is x:
            query, key, value = side_by_side(x, asked, *told)
        else:
            (query,) = side_by_side(x, asked)
            if memory is None:
                key, value = cache.read()
            else:
                key, value = side_by_side(memory, *told)
        # Each device keeps its own queries and gathers the keys and values of all positions.
        query = split(query, "sequence")
        if memory is not None:
            key, value = split(key, None), split(value, None)
            if cache is not None:
                key, value, cache = cache.extended(key, value, at)
        bias = None
        if isinstance(distances, Places):
            query, bias = PositionScores(name="relative")(query, distances, key.shape[1])
            bias = (bias * (width // self.heads) ** -0.5).astype(jnp.float32)
        elif distances is not None:
            gate = PositionGate(self.heads, name="position_gate")(x) if self.gated else 1.0
            bias = gate * distances
        if self.grid is not None:
            own = GridBias(self.heads, self.grid, name="relative_position")()
            bias = own if bias is None else bias + own
        causal = self.causal and cache is None
        drops = self.dropout > 0.0 and self.has_rng("dropout")
        fast = None if cache is not None or drops else attention.kernel_for(query, self.fused)
        if fast is None:
            dropout = Dropout(self.dropout)
            mixed = attention.plain(query, key, value, mask, bias, causal, dropout)
        else:
            mixed = attention.fused(query, key, value, mask, bias, causal, fast)
        states = Dense(width, style.out_bias, name="out")(mixed.reshape(*x.shape[:2], width))
        return states if cache is None else (states, cache)
