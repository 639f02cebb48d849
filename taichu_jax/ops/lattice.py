"""The sum over all alignments of a transducer, in log space with static shapes (arXiv 1211.3711)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

NEVER = -1e30  # log of 0; finite, so that no gradient is NaN


def transducer_losses(
    blank: jax.Array, label: jax.Array, frames: jax.Array, labels: jax.Array
) -> jax.Array:
    """- log p(y | x) of every row, float32 [B].

        a(t, u) = a(t - 1, u) blank(t - 1, u) + a(t, u - 1) label(t, u - 1),    a(0, 0) = 1
        p(y | x) = a(T - 1, U) blank(T - 1, U)

    The nodes of a diagonal t + u = d depend on those of the one before only, so the scan runs over
    diagonals, of which there are T + U, and all nodes of one are computed at once.

    Args:
      blank: log p of the blank float32 [B, T, U + 1] at every node (t, u).
      label: log p of label u + 1, float32 [B, T, U].
      frames: int32 [B], the real states, 1 .. T; a row of 0 has no meaning.
      labels: int32 [B], the real labels, 0 .. U.
    """
    blank, label = blank.astype(jnp.float32), label.astype(jnp.float32)
    batch, _, places = blank.shape
    blanks = _by_diagonal(blank)
    steps = _by_diagonal(jnp.pad(label, ((0, 0), (0, 0), (0, 1)), constant_values=NEVER))
    first = jnp.full((batch, places), NEVER).at[:, 0].set(0.0)

    def advance(a, log_p):
        blank, label = log_p
        written = jnp.pad((a + label)[:, :-1], ((0, 0), (1, 0)), constant_values=NEVER)
        return jnp.logaddexp(a + blank, written), a

    _, a = jax.lax.scan(advance, first, (blanks, steps))  # [T + U, B, U + 1]
    row = jnp.arange(batch)
    last = jnp.maximum(frames - 1, 0)
    return -(a[last + labels, row, labels] + blank[row, last, labels])


def _by_diagonal(x: jax.Array) -> jax.Array:
    """[T + U, B, U + 1] of x [B, T, U + 1]: element (d, b, u) is x[b, d - u, u], or NEVER outside."""
    _, frames, places = x.shape
    t = jnp.arange(frames + places - 1)[:, None] - jnp.arange(places)
    picked = x[:, jnp.clip(t, 0, frames - 1), jnp.arange(places)]
    return jnp.moveaxis(jnp.where((t >= 0) & (t < frames), picked, NEVER), 1, 0)
