"""From symbols to frames and back, given how many frames every symbol lasts.

`durations` is int32 [B, N]; the symbols of a row follow each other without gaps from its first frame.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import zero_beyond


def symbol_of_frame(durations: jax.Array, frames: int) -> jax.Array:
    """int32 [B, frames]: the symbol that each frame belongs to; N behind the last one."""
    ends = jnp.cumsum(durations, axis=1)
    at = jnp.arange(frames)
    # Comparing with all ends has no loop; for some dozens of symbols that is the fastest search.
    search = jax.vmap(lambda e: jnp.searchsorted(e, at, side="right", method="compare_all"))
    return search(ends).astype(jnp.int32)


def lengthened(states: jax.Array, durations: jax.Array, frames: int) -> jax.Array:
    """[B, frames, D]: every state of [B, N, D] as often as it lasts; zeros behind, the rest is cut.

    The length regulator of FastSpeech (arXiv 1905.09263).
    """
    symbol = symbol_of_frame(durations, frames)
    inside = symbol < states.shape[1]
    index = jnp.minimum(symbol, states.shape[1] - 1)
    return zero_beyond(jnp.take_along_axis(states, index[..., None], axis=1), inside)


def averaged(
    values: jax.Array, durations: jax.Array, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """(float32 [B, N], bool [B, N]): each symbol's mean over its frames, and whether it has any.

    As FastPitch (arXiv 2006.06873) gives every symbol one pitch. 0 where there is none.

    Args:
      values: [B, F], one number a frame.
      where: bool [B, F], the frames that count; all by default.
    """
    frames, places = values.shape[1], durations.shape[1]
    held = symbol_of_frame(durations, frames)[..., None] == jnp.arange(places)
    if where is not None:
        held = held & where[..., None]
    total = jnp.where(held, values.astype(jnp.float32)[..., None], 0.0).sum(1)
    count = held.sum(1)
    return total / jnp.maximum(count, 1), count > 0


def frames_of(
    log_durations: jax.Array, mask: jax.Array, speed: jax.Array | float, most: int
) -> jax.Array:
    """int32 [B, N]: predicted ln(1 + frames) as whole frames, divided by `speed`.

    From 1, as in every alignment, to `most` for a symbol where mask [B, N] is true; else 0.
    """
    wanted = jnp.round(jnp.expm1(log_durations.astype(jnp.float32)) / speed)
    return jnp.where(mask, jnp.clip(wanted, 1, most), 0).astype(jnp.int32)
