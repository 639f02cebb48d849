"""Codebooks: which entry is nearest, and how evenly entries are used."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.monitors import perplexity


def code_shares(indices: jax.Array, where: jax.Array, codes: int) -> jax.Array:
    """float32 [G, V]: how often each entry was chosen, over the positions that count.

    Args:
      indices: int [B, N, G], the chosen entries of every group.
      where: bool [B, N].
      codes: V.
    """
    return mean_probabilities(jax.nn.one_hot(indices, codes), where)


def mean_probabilities(probabilities: jax.Array, where: jax.Array) -> jax.Array:
    """float32 [G, V]: mean of [B, N, G, V] over the positions where `where` [B, N] is true."""
    used = jnp.where(where[..., None, None], probabilities.astype(jnp.float32), 0.0)
    return used.sum((0, 1)) / jnp.maximum(where.sum(), 1)


def diversity(shares: jax.Array) -> jax.Array:
    """(G V - sum_g exp(H(p_g))) / (G V) of shares p [G, V]: 0 when every entry is used alike.

    arXiv 2006.11477, equation 4, in the form of the authors' code.
    """
    return 1.0 - perplexity(shares)[0] / shares.size


def nearest(vectors: jax.Array, entries: jax.Array) -> jax.Array:
    """int32 [...]: which of `entries` [V, D] is nearest to each of `vectors` [..., D]."""
    vectors, entries = vectors.astype(jnp.float32), entries.astype(jnp.float32)
    # -|z - e|^2 but for |z|^2, which is the same for all entries
    scores = 2 * vectors @ entries.T - jnp.square(entries).sum(-1)
    return scores.argmax(-1).astype(jnp.int32)
