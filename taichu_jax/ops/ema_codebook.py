"""A codebook that follows the vectors assigned to it: exponential moving averages (VQ-VAE, A.1).

    N_i <- g N_i + (1 - g) n_i,    m_i <- g m_i + (1 - g) sum_{j assigned to i} z_j,    e_i = m_i / N'_i
    N'_i = (N_i + epsilon) / (N + V epsilon) N,    N = sum_i N_i                    Laplace smoothing

n_i is how many vectors of the step chose entry i. Equations 6 to 8 of arXiv 1711.00937; smoothing as in
DeepMind's Sonnet. An entry that is hardly chosen is put where a vector of the step is (Jukebox, arXiv
2005.00341, section 3.1). The step is the global batch: nothing here knows of devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

EPSILON = 1e-5  # of the smoothing, Sonnet's


@struct.dataclass
class CodebookAverages:
    """Running sums of one codebook, float32; all zeros before the first step.

    Attributes:
      counts: N [V], vectors per step.
      sums: m [V, D].
    """

    counts: jax.Array
    sums: jax.Array

    @property
    def entries(self) -> jax.Array:
        """The codebook e [V, D]; zeros before the first step."""
        return self.sums / jnp.maximum(smoothed(self.counts), EPSILON**2)[:, None]

    @property
    def started(self) -> jax.Array:
        """Whether any vector was ever counted, bool scalar."""
        return self.counts.sum() > 0


def no_averages(codes: int, dim: int) -> CodebookAverages:
    """The averages before the first step."""
    return CodebookAverages(jnp.zeros(codes, jnp.float32), jnp.zeros((codes, dim), jnp.float32))


def smoothed(counts: jax.Array) -> jax.Array:
    """N' of counts N [V]: no zero, the same sum."""
    total = counts.sum()
    return (counts + EPSILON) / (total + len(counts) * EPSILON) * total


def follow(
    averages: CodebookAverages,
    entries: jax.Array,
    vectors: jax.Array,
    chosen: jax.Array,
    where: jax.Array,
    decay: float,
) -> CodebookAverages:
    """The averages after one step; the same as before where no vector counts.

    At the first step every entry has the weight of one vector, N_i = 1 and m_i = e_i, so that entries
    that nobody chooses stay where they are. Sonnet starts from N_i = 0 and m_i = e_i, which throws them
    outwards.

    Args:
      entries: [V, D], the codebook that the first step starts from.
      vectors: z [M, D].
      chosen: int [M], the entry that each vector is assigned to.
      where: bool [M], the vectors that count.
    """
    codes = len(averages.counts)
    counts = jnp.where(averages.started, averages.counts, 1.0)
    sums = jnp.where(averages.started, averages.sums, entries.astype(jnp.float32))
    assigned = jax.nn.one_hot(chosen, codes, dtype=jnp.float32) * where[:, None]
    vectors = jnp.where(where[:, None], vectors.astype(jnp.float32), 0.0)
    new = CodebookAverages(
        counts=decay * counts + (1 - decay) * assigned.sum(0),
        sums=decay * sums + (1 - decay) * assigned.T @ vectors,
    )
    return jax.tree.map(lambda n, o: jnp.where(where.any(), n, o), new, averages)


def revive(
    averages: CodebookAverages,
    vectors: jax.Array,
    where: jax.Array,
    threshold: float,
    rng: jax.Array,
) -> tuple[CodebookAverages, jax.Array]:
    """(averages, int32 scalar): entries with N_i below `threshold` are replaced, and how many were.

    Each becomes a vector of the step, drawn uniformly and independently from those that count, with
    N_i = threshold. Nothing is replaced where no vector counts.

    Args:
      vectors: z [M, D].
      where: bool [M].
    """
    dead = (averages.counts < threshold) & where.any()
    counts = jnp.where(dead, threshold, averages.counts)
    drawn = vectors.astype(jnp.float32)[draw_where(rng, where, len(counts))]
    sums = jnp.where(dead[:, None], drawn * smoothed(counts)[:, None], averages.sums)
    return CodebookAverages(counts, sums), dead.sum()


def draw_where(rng: jax.Array, where: jax.Array, count: int) -> jax.Array:
    """int32 [count]: positions where `where` [M] is true, each as likely, with repetition.

    0 where it is true nowhere.
    """
    ranks = jax.random.randint(rng, (count,), 0, jnp.maximum(where.sum(), 1))
    found = jnp.searchsorted(jnp.cumsum(where), ranks + 1)
    return jnp.minimum(found, len(where) - 1).astype(jnp.int32) * where.any()
