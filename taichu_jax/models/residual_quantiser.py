"""Residual vector quantisation: SoundStream (arXiv 2107.03312, algorithm 1), EnCodec (2210.13438).

    r_1 = z,    e_s = nearest entry of codebook s to r_s,    r_{s+1} = r_s - e_s,    q = e_1 + .. + e_S

The entries are parameters, learned by VQ-VAE's codebook loss (arXiv 1711.00937, equation 3), so that
whatever has the weights of a run has its codes. Both papers use moving averages in place of this loss.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.ops.codebooks import nearest


class ResidualCodes(NamedTuple):
    """What a residual quantiser returns.

    Attributes:
      vectors: [..., dim], the sum of the chosen entries; its gradient is that of z (straight-through).
      indices: int32 [..., stages], the chosen entries.
      penalty: float32 [..., stages], the loss by which entries and latents approach each other:
        mean over the channels of (sg(r_s) - e_s)^2 + gamma (r_s - sg(e_s))^2.
      residuals: float32 [..., stages, dim], the r_s, without gradient.
    """

    vectors: jax.Array
    indices: jax.Array
    penalty: jax.Array
    residuals: jax.Array


class ResidualQuantiser(nn.Module):
    """`stages` codebooks, each of the residual that the ones before it leave.

    Attributes:
      dim: width of the latents and of the entries.
      gamma: weight of the commitment term, VQ-VAE's.
      deviation: of the initial entries. For latents of variance 1; ours.
    """

    stages: int = 8
    codes: int = 1024
    dim: int = 64
    gamma: float = 0.25
    deviation: float = 0.5

    def setup(self):
        if self.stages < 1 or self.codes < 2:
            raise UserError(f"stages={self.stages}, codes={self.codes}: at least 1 and 2")
        start = nn.initializers.normal(self.deviation)
        shape = (self.stages, self.codes, self.dim)
        self.code_embedding = self.param("code_embedding", start, shape)

    def __call__(self, x: jax.Array, stages: jax.Array | None = None) -> ResidualCodes:
        """Quantises x [B, N, dim].

        Args:
          stages: int32 [B], how many of the stages each row's `vectors` sum up; None for all.
        """
        if x.shape[-1] != self.dim:
            raise UserError(f"dim={self.dim}: the latents have {x.shape[-1]} channels")
        still, z = jax.lax.stop_gradient, x.astype(jnp.float32)
        residual, total, indices, penalties, residuals = z, jnp.zeros_like(z), [], [], []
        for s, book in enumerate(self.entries()):
            index = nearest(residual, book)
            entry = jnp.take(book, index, axis=0)
            learn, commit = jnp.square(still(residual) - entry), jnp.square(residual - still(entry))
            penalties.append((learn + self.gamma * commit).mean(-1))
            indices.append(index)
            residuals.append(still(residual))
            residual = residual - still(entry)
            total += entry if stages is None else jnp.where(_after(stages, s), entry, 0.0)
        vectors = still(total) + (z - still(z))  # exactly the sum, with z's gradient
        return ResidualCodes(
            vectors=vectors.astype(x.dtype),
            indices=jnp.stack(indices, axis=-1),
            penalty=jnp.stack(penalties, axis=-1),
            residuals=jnp.stack(residuals, axis=-2),
        )

    def look_up(self, indices: jax.Array) -> jax.Array:
        """float32 [..., dim]: the sum of the entries `indices` [..., S] of the first S stages."""
        if not 1 <= indices.shape[-1] <= self.stages:
            raise UserError(
                f"codes of {indices.shape[-1]} stages; valid: 1 to stages={self.stages}"
            )
        books = self.entries()
        chosen = [jnp.take(books[s], indices[..., s], axis=0) for s in range(indices.shape[-1])]
        return sum(chosen[1:], chosen[0])

    def entries(self) -> jax.Array:
        """float32 [stages, codes, dim]: the codebooks."""
        return self.code_embedding.astype(jnp.float32)


def _after(stages: jax.Array, s: int) -> jax.Array:
    return (stages > s)[:, None, None]
