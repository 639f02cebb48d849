"""SpecAugment: stretches of time and bands of frequency that are blotted out (arXiv 1904.08779).

    t ~ U{0 .. T},  t0 ~ U{0 .. n - t - 1}:  frames t0 .. t0 + t - 1 of n become 0, `time_masks` times
    f ~ U{0 .. F},  f0 ~ U{0 .. M - f - 1}:  the same for bands, `band_masks` times

A time mask covers at most the share p of the row's real frames. 0 is the mean where spectrograms are
normalised, as the paper's are. Its time warp is left out: the paper finds it the least of the three
(section 5) and it is by far the dearest. By the paper's half-open interval for t0 the last frame and the
last band are never covered, unless a mask covers everything.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import within
from taichu_jax.ops.random import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """The policy; defaults are the paper's LibriSpeech double (LD), without the time warp.

    Attributes:
      time_masks, time_width: how many, and T, in frames.
      time_share: p.
      band_masks, band_width: how many, and F, in bands.
    """

    time_masks: int = 2
    time_width: int = 100
    time_share: float = 1.0
    band_masks: int = 2
    band_width: int = 27

    def __call__(self, rng: jax.Array, mel: jax.Array, lengths: jax.Array) -> jax.Array:
        """Masks log-mel frames [B, F, M] of `lengths` int32 [B] real frames; every row by itself."""
        batch, frames, bands = mel.shape
        longest = jnp.minimum(self.time_width, jnp.floor(self.time_share * lengths))
        time = stretches(
            fold_name(rng, "time"), lengths, frames, count=self.time_masks, longest=longest
        )
        everywhere = jnp.full((batch,), bands)
        band = stretches(
            fold_name(rng, "bands"),
            everywhere,
            bands,
            count=self.band_masks,
            longest=jnp.minimum(self.band_width, everywhere),
        )
        return jnp.where(time[:, :, None] | band[:, None], 0, mel)


def stretches(
    rng: jax.Array, lengths: jax.Array, size: int, *, count: int, longest: jax.Array
) -> jax.Array:
    """bool [B, size]: the union of `count` stretches in every row, never behind `lengths` [B].

    Args:
      longest: [B]; a stretch's length is uniform over 0 .. longest.
    """
    how_long, where = jax.random.split(rng)
    shape = (lengths.shape[0], count)
    longest, lengths = longest[:, None].astype(jnp.int32), lengths[:, None]
    length = _below(jax.random.uniform(how_long, shape), longest + 1)
    start = _below(jax.random.uniform(where, shape), lengths - length)
    index = jnp.arange(size)
    inside = (index >= start[..., None]) & (index < (start + length)[..., None])
    return inside.any(1) & within(lengths[:, 0], size)


def _below(u: jax.Array, count: jax.Array) -> jax.Array:
    """int32 uniform over 0 .. count - 1 from u in [0, 1); 0 where count is 0."""
    return jnp.clip(jnp.floor(u * count).astype(jnp.int32), 0, jnp.maximum(count - 1, 0))
