"""Keys and values that attention computed before: explicit state, passed in and handed back.

A cache is a pytree; every array has the batch's rows on its first axis, so rows can be picked and
repeated without knowing what is inside. `extended(key, value, at)` takes the keys and values of new
positions, [B, N, heads, d], of which the first is position `at`, and returns the keys and values to
attend over and the cache for the next call. What is kept is [B, heads, positions, d]: attention goes head
by head, and would else have to gather every head's part of the whole room at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Written:
    """Room for a whole sequence; new positions are written in place."""

    key: jax.Array
    value: jax.Array

    def extended(self, key, value, at):
        """All of the room: the mask says what of it is there."""
        new = Written(_write(self.key, key, at), _write(self.value, value, at))
        return _turned(new.key), _turned(new.value), new


@struct.dataclass
class Recent:
    """The last `left` positions only: what a stream looks back on."""

    key: jax.Array
    value: jax.Array

    def extended(self, key, value, at):
        """Those before, then the new ones; the oldest are forgotten."""
        del at
        new = key.shape[1]
        key = jnp.concatenate([self.key, _turned(key).astype(self.key.dtype)], axis=2)
        value = jnp.concatenate([self.value, _turned(value).astype(self.value.dtype)], axis=2)
        return _turned(key), _turned(value), Recent(key[:, :, new:], value[:, :, new:])


@struct.dataclass
class OfMemory:
    """Of an encoder's states: computed once, then read. Empty before that."""

    key: jax.Array
    value: jax.Array

    def extended(self, key, value, at):
        """The new ones in place of what was there."""
        del at
        return key, value, OfMemory(_turned(key), _turned(value))

    def read(self):
        """Keys and values to attend over."""
        return _turned(self.key), _turned(self.value)


@struct.dataclass
class BlockCache:
    """Of one block, or of several, stacked along the second axis: [B, blocks, ...].

    Attributes:
      own: of self-attention.
      cross: of attention over a memory; None where there is none.
    """

    own: Written | Recent
    cross: OfMemory | None = None


Cache = tuple[BlockCache, ...]


def empty(
    kind: type[Written] | type[Recent],
    *,
    batch: int,
    length: int,
    width: int,
    heads: int,
    stacks: Sequence[int],
    cross: bool = False,
) -> Cache:
    """A cache that holds nothing yet, float32.

    Args:
      length: positions it has room for.
      stacks: `Transformer.cache_stacks`.
      cross: whether the blocks also attend over a memory.
    """

    def zeros(stacked: int, positions: int) -> jax.Array:
        between = (stacked,) if stacked else ()
        return jnp.zeros((batch, *between, heads, positions, width // heads))

    return tuple(
        BlockCache(
            own=kind(zeros(n, length), zeros(n, length)),
            cross=OfMemory(zeros(n, 0), zeros(n, 0)) if cross else None,
        )
        for n in stacks
    )


def past(cache: Cache, batch: int, count: int, at: jax.Array | int) -> jax.Array:
    """bool [batch, count, length]: what the positions from `at` on may see of a cache's room."""
    length = cache[0].own.key.shape[-2]
    position = at + jnp.arange(count)
    return jnp.broadcast_to(jnp.arange(length) <= position[:, None], (batch, count, length))


def _turned(x: jax.Array) -> jax.Array:
    """[B, N, heads, d] as [B, heads, N, d], and back."""
    return jnp.swapaxes(x, 1, 2)


def _write(room: jax.Array, new: jax.Array, at: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(room, _turned(new).astype(room.dtype), at, axis=2)
