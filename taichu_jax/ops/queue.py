"""A first-in first-out queue of feature vectors of fixed size, for negatives (MoCo)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Queue:
    """The last K vectors that were pushed.

    Attributes:
      items: [K, D].
      pointer: int32 scalar, where the next vector goes.
      filled: int32 scalar, how many of the K were ever written; they are the first ones.
    """

    items: jax.Array
    pointer: jax.Array
    filled: jax.Array

    @property
    def valid(self) -> jax.Array:
        """bool [K], true where there is a vector."""
        return jnp.arange(len(self.items)) < self.filled

    def push(self, vectors: jax.Array, where: jax.Array | None = None) -> Queue:
        """The queue after the vectors [B, D] came in, in order; the oldest ones leave.

        The pointer wraps, also inside a batch: B need not divide K, and of a batch larger than K the
        last K stay.

        Args:
          where: bool [B], the vectors that come in; all by default.
        """
        size = len(self.items)
        where = jnp.ones(len(vectors), bool) if where is None else where
        count = where.sum().astype(jnp.int32)
        order = jnp.argsort(~where, stable=True)
        # Slot s takes the vectors number first, first + K, ...; the last of them stays. A gather, so
        # that two vectors never race for one slot.
        first = (jnp.arange(size) - self.pointer) % size
        last = first + size * ((count - 1 - first) // size)
        taken = first < count
        source = order[jnp.where(taken, last, 0)]
        return Queue(
            items=jnp.where(taken[:, None], vectors[source].astype(self.items.dtype), self.items),
            pointer=(self.pointer + count) % size,
            filled=jnp.minimum(self.filled + count, size),
        )


def empty_queue(size: int, width: int) -> Queue:
    """A queue of `size` places without any vector."""
    zero = jnp.zeros((), jnp.int32)
    return Queue(items=jnp.zeros((size, width), jnp.float32), pointer=zero, filled=zero)
