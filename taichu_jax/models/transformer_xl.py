"""Relative positions of Transformer-XL (arXiv 1901.02860, section 3.3) and XLNet (arXiv 1906.08237).

    score_ij = ((q_i + u)·k_j + (q_i + v)·W R(i - j) + (q_i + w)·s_ij) / sqrt(d)

R(n) are sinusoids of a distance, u, v and w learnt vectors of a head, s_ij one of two learnt vectors:
whether i and j are in the same segment (XLNet, section 2.5). The third term is there if segments are.

Usually the second term is computed for every distance and then shifted row by row. Here sin(i - j) and
cos(i - j) are taken apart into sines and cosines of i and of j, which is the same number: only products,
for rows that stand anywhere. It costs heads x M / (12 width) of what a block's other weights cost.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct


@struct.dataclass
class Places:
    """Where the rows of a stack stand.

    Attributes:
      rows: int32 [B or 1, N], every row's position among the M that attention sees, 0 the first.
      differs: bool [B, N, M], true where a row is of another segment; None for no such term.
      content: how many rows, the first ones, attention sees; the others only look. Static.
    """

    rows: jax.Array
    differs: jax.Array | None = None
    content: int = struct.field(pytree_node=False, default=0)

    @classmethod
    def in_order(cls, rows: int, seen: int) -> Places:
        """Rows one behind the other, the last at the last of the positions that attention sees."""
        return cls(jnp.arange(seen - rows, seen)[None], content=rows)


def sines_and_cosines(length: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [length, width / 2] each: sin and cos of position / 10000^(2 k / width)."""
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * rates
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


class PositionScores(nn.Module):
    """The parameters of one attention: what positions and segments add to its scores.

    Parameters: position_kernel [D, D] (W), content_bias, position_bias, segment_bias [heads, D / heads]
    (u, v, w), segment_embedding [2, heads, D / heads] (same, other); the last two with segments only.
    """

    @nn.compact
    def __call__(self, query: jax.Array, places: Places, seen: int) -> tuple[jax.Array, jax.Array]:
        """Returns (q + u [B, N, heads, D / heads], the two other terms [B, heads, N, M]), not scaled.

        Args:
          query: q, [B, N, heads, D / heads].
          seen: M, the positions that attention sees.
        """
        heads, size = query.shape[2:]
        width = heads * size
        normal = nn.initializers.normal(0.02)

        def vector(name, *shape):
            return self.param(name, normal, (*shape, heads, size)).astype(query.dtype)

        kernel = self.param("position_kernel", nn.initializers.lecun_normal(), (width, width))
        kernel = kernel.astype(query.dtype).reshape(2, width // 2, heads, size)
        asking = query + vector("position_bias")
        by_sine, by_cosine = (jnp.einsum("bnhd,fhd->bnhf", asking, half) for half in kernel)
        sines, cosines = (jnp.asarray(t, query.dtype) for t in sines_and_cosines(seen, width))
        sine, cosine = sines[places.rows][:, :, None], cosines[places.rows][:, :, None]
        # by_sine sin(i - j) + by_cosine cos(i - j), ordered by cos(j) and sin(j)
        with_cosine = by_sine * sine + by_cosine * cosine
        with_sine = by_cosine * sine - by_sine * cosine
        beside = jnp.einsum("bnhf,mf->bhnm", with_cosine, cosines)
        beside += jnp.einsum("bnhf,mf->bhnm", with_sine, sines)
        if places.differs is not None:
            kinds = vector("segment_embedding", 2)
            asked = jnp.einsum("bnhd,khd->kbhn", query + vector("segment_bias"), kinds)
            beside += jnp.where(places.differs[:, None], asked[1][..., None], asked[0][..., None])
        return query + vector("content_bias"), beside
