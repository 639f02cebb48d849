"""InfoNCE over the whole (global) batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def info_nce(
    scores: jax.Array, rows: jax.Array, columns: jax.Array, same: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sum over valid pairs of -log softmax(scores)[i, i], rows against columns.

    Args:
      scores: float32 [B, B], similarity divided by the temperature; the pair of row i is column i.
      rows, columns: bool [B], which are there; a pair counts when both are.
      same: bool [B, B], pairs that mean the same and must not be pushed apart; they are left out of
        the denominator, but for the diagonal.

    Returns:
      (sum of losses, number of rows whose own column scores highest, number of pairs), float32.
    """
    own = jnp.eye(scores.shape[0], dtype=bool)
    candidates = columns[None] & (~same | own)
    low = jnp.finfo(jnp.float32).min
    masked = jnp.where(candidates, scores, low)
    pairs = rows & columns
    losses = jax.nn.logsumexp(masked, axis=-1) - jnp.diagonal(scores)
    right = (masked.argmax(-1) == jnp.arange(scores.shape[0])) & pairs
    total = jnp.where(pairs, losses, 0.0).sum()
    return total, right.sum().astype(jnp.float32), pairs.sum().astype(jnp.float32)
