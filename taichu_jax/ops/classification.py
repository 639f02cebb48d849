"""Cross entropy over chosen positions, with its accuracy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    where: jax.Array,
    smoothing: float = 0.0,
    possible: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(sum of -log p(label), number of right first choices, number of positions), float32.

    Args:
      logits: [..., V].
      labels: int [...].
      where: bool [...], the positions that count.
      smoothing: label smoothing; (1 - s) on the label, s spread over all V classes.
      possible: bool [..., V], broadcastable; other classes have probability 0 and no part in s.
    """
    logits = logits.astype(jnp.float32)
    if possible is not None:
        logits = jnp.where(possible, logits, jnp.finfo(jnp.float32).min)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing:
        uniform = -jax.nn.log_softmax(logits).mean(-1, where=possible)
        losses = (1 - smoothing) * losses + smoothing * uniform
    right = (first_choice(logits) == labels) & where
    return (
        jnp.where(where, losses, 0.0).sum(),
        right.sum().astype(jnp.float32),
        where.sum().astype(jnp.float32),
    )


def first_choice(scores: jax.Array) -> jax.Array:
    """int32 [...]: the first of the largest of scores [..., V]; V if there is a NaN.

    As `argmax`, but in two reductions that CPUs compute with whole vectors, of which a softmax needs
    the first anyway.
    """
    size = scores.shape[-1]
    places = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    return jnp.where(scores == scores.max(-1, keepdims=True), places, size).min(-1)
