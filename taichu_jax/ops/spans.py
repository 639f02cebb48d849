"""Span masks over time: fixed shapes, an exact number of starts in every row (arXiv 2006.11477).

Two conventions name the same density. The paper draws a share p = 0.065 of the time steps as starts of
spans of M = 10; fairseq's `mask_prob` is the product p M = 0.65, the share that would be masked if no
two spans overlapped (overlaps bring it to about one half). `rate` here is fairseq's. Transformers'
`mask_time_prob` is the same product, but its default 0.05 belongs to fine-tuning: pre-training with
it would hide a thirteenth as many spans.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import within
from taichu_jax.ops.masking import choose_exactly


def span_starts(
    rng: jax.Array, lengths: jax.Array, size: int, *, rate: float, span: int, at_least: int = 2
) -> jax.Array:
    """bool [B, size], where spans begin.

    A row of n steps gets max(at_least, floor(rate n / span + u)) starts, u uniform in [0, 1), drawn
    without replacement from the first n - span steps (fairseq's range: at least the last step stays
    visible). A row with n <= span gets none, a row with fewer places than starts gets one at each.
    """
    where, rounding = jax.random.split(rng)
    places = jnp.maximum(lengths - span, 0)
    u = jax.random.uniform(rounding, lengths.shape)
    wanted = jnp.floor(rate * lengths / span + u).astype(jnp.int32)
    count = jnp.minimum(jnp.maximum(wanted, at_least), places)
    return choose_exactly(where, within(places, size), count)


def spans_from(starts: jax.Array, span: int) -> jax.Array:
    """bool [B, N], true at every start and at the span - 1 steps behind it."""
    begun = jnp.cumsum(starts.astype(jnp.int32), axis=-1)
    ended = jnp.pad(begun, ((0, 0), (span, 0)))[:, : begun.shape[1]]
    return begun > ended


def span_mask(
    rng: jax.Array,
    lengths: jax.Array,
    size: int,
    *,
    rate: float = 0.65,
    span: int = 10,
    at_least: int = 2,
) -> jax.Array:
    """bool [B, size], true where a step is hidden; never behind `lengths` int32 [B].

    Args:
      rate: starts per row times `span`, as a share of the row (fairseq's mask_prob).
      span: steps per span; spans may overlap.
      at_least: the fewest starts of a row that is long enough.
    """
    return spans_from(
        span_starts(rng, lengths, size, rate=rate, span=span, at_least=at_least), span
    )
