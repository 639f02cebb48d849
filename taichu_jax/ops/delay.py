"""The delay pattern of MusicGen (arXiv 2306.05284, section 2.2): several codes a token, one step apart.

Stage s of token t is written at step t + s, so it can depend on the lower stages of its own token, and
one pass of a decoder writes a code of every stage. With an end, the first stage writes it at the step
behind its last code.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import within, zero_beyond


class Delayed(NamedTuple):
    """What is written at each step.

    Attributes:
      ids: int32 [B, L, S].
      real: bool [B, L, S], false where a stage has nothing to write.
    """

    ids: jax.Array
    real: jax.Array


def step_count(tokens: int, stages: int, ends: bool) -> int:
    """L, the steps in which `tokens` tokens are written; one is kept for the end."""
    return tokens + stages - 1 + int(ends)


def delay(
    codes: jax.Array, lengths: jax.Array | None, *, nothing: int, end: int | None = None
) -> Delayed:
    """Tokens to steps.

    Args:
      codes: int [B, N, S].
      lengths: int [B], the tokens that are real; None: all are.
      nothing: the id where a stage has no code.
      end: the id of the end; None for none.
    """
    batch, tokens, stages = codes.shape
    if lengths is None:
        lengths = jnp.full(batch, tokens, jnp.int32)
    steps = step_count(tokens, stages, end is not None)
    real = within(lengths, tokens)
    known = jnp.where(real[..., None], codes, nothing)
    ids = jnp.stack([_later(known[..., s], s, steps, nothing) for s in range(stages)], -1)
    real = jnp.stack([_later(real, s, steps, False) for s in range(stages)], -1)
    if end is not None:
        last = (jnp.arange(steps) == lengths[:, None])[..., None] & (jnp.arange(stages) == 0)
        ids, real = jnp.where(last, end, ids), real | last
    return Delayed(ids.astype(jnp.int32), real)


def undelay(ids: jax.Array, end: int | None = None) -> tuple[jax.Array, jax.Array]:
    """(codes int32 [B, N, S], lengths int32 [B]) of steps [B, L, S]; codes behind the end are 0.

    A row without an end has all N tokens.
    """
    stages = ids.shape[2]
    tokens = ids.shape[1] - step_count(0, stages, end is not None)
    codes = jnp.stack([ids[:, s : s + tokens, s] for s in range(stages)], -1)
    if end is None:
        return codes.astype(jnp.int32), jnp.full(len(ids), tokens, jnp.int32)
    ended = ids[:, :tokens, 0] == end
    lengths = jnp.where(ended.any(1), ended.argmax(1), tokens).astype(jnp.int32)
    return zero_beyond(codes, within(lengths, tokens)).astype(jnp.int32), lengths


def _later(x: jax.Array, by: int, steps: int, filler: int) -> jax.Array:
    """[B, steps]: x [B, N], `by` steps later."""
    return jnp.pad(x, ((0, 0), (by, steps - x.shape[1] - by)), constant_values=filler)
