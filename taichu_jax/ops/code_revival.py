"""Which entries of codebooks nobody chooses, and where the data are that could choose them.

EnCodec (arXiv 2210.13438, section 3.2) puts a residual of the batch in the place of an entry whose moving
count is low. Entries that are learned by gradient are drawn to such a residual instead, by a squared
error, for as long as they are unused. The residual is kept meanwhile: a new one at each step
would draw all unused entries to the mean of the data, where most of them stay unused.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from taichu_jax.ops.codebooks import code_shares


@struct.dataclass
class CodeUse:
    """How `stages` codebooks of `codes` entries were used.

    Attributes:
      shares: float32 [stages, codes], the moving share of the tokens that each entry gets.
      targets: float32 [stages, codes, dim], where an unused entry is drawn to.
      unused: bool [stages, codes], those that have a target.
    """

    shares: jax.Array
    targets: jax.Array
    unused: jax.Array


def all_used(stages: int, codes: int, dim: int) -> CodeUse:
    """Before the first step every entry has an even share."""
    return CodeUse(
        jnp.full((stages, codes), 1 / codes, jnp.float32),  # strongly typed, as what follows
        jnp.zeros((stages, codes, dim)),
        jnp.zeros((stages, codes), bool),
    )


def follow_use(
    use: CodeUse,
    indices: jax.Array,
    residuals: jax.Array,
    real: jax.Array,
    rng: jax.Array,
    *,
    decay: float,
    below: float,
    renew: jax.Array,
) -> CodeUse:
    """The use after a batch.

    Args:
      indices: int [B, N, stages], the chosen entries.
      residuals: [B, N, stages, dim], what each stage was given.
      real: bool [B, N], the tokens that count; without any, nothing changes.
      decay: of the moving shares.
      below: an entry is unused below this part of an even share.
      renew: bool scalar, whether entries that stay unused get new targets.
    """
    stages, codes, dim = use.targets.shape
    shares = decay * use.shares + (1 - decay) * code_shares(indices, real, codes)
    unused = shares < below / codes
    flat = jax.lax.stop_gradient(residuals.astype(jnp.float32)).reshape(-1, stages, dim)
    order = jnp.argsort(~real.reshape(-1), stable=True)  # the real ones first
    count = real.sum()
    share = jax.random.uniform(rng, (stages, codes)) * count
    chosen = order[jnp.minimum(share.astype(jnp.int32), jnp.maximum(count - 1, 0))]
    drawn = flat[chosen, jnp.arange(stages)[:, None]]
    fresh = unused & (renew | ~use.unused)
    moved = CodeUse(shares, jnp.where(fresh[..., None], drawn, use.targets), unused)
    return jax.tree.map(lambda new, old: jnp.where(count > 0, new, old), moved, use)


def revival(use: CodeUse, entries: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum, count) over the unused entries of mean_d (e - target)^2; entries [stages, codes, dim]."""
    error = jnp.square(entries.astype(jnp.float32) - jax.lax.stop_gradient(use.targets)).mean(-1)
    return jnp.where(use.unused, error, 0.0).sum(), use.unused.sum().astype(jnp.float32)
