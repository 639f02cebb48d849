"""Samples in frames of 10 ms: what is real of a padded row, and windows around or behind a frame."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import within, zero_beyond

RATE = 16_000  # samples per second
HOP = 160  # samples per frame


def frame_count(samples, hop: int = HOP):
    """Whole frames in `samples` samples, int or int array; a rest shorter than a frame is dropped."""
    return samples // hop


def windows(
    audio: jax.Array, lengths: jax.Array, size: int, *, centred: bool = True, hop: int = HOP
) -> jax.Array:
    """float32 [B, F, size]: frame t holds `size` samples of audio [B, T]; zeros beyond both ends.

    Args:
      lengths: int32 [B], the real samples; what is behind them counts as zero.
      centred: sample t * hop is in the middle (librosa's and SciPy's convention); else the first.
    """
    batch, samples = audio.shape
    frames = frame_count(samples, hop)
    before = size // 2 if centred else 0
    pieces = -(-size // hop)
    after = (frames + pieces - 1) * hop - samples - before  # negative where samples are left over
    x = zero_beyond(audio.astype(jnp.float32), within(lengths, samples))
    x = jax.lax.pad(x, 0.0, ((0, 0, 0), (before, after, 0)))
    x = x.reshape(batch, frames + pieces - 1, hop)
    return jnp.concatenate([x[:, i : i + frames] for i in range(pieces)], axis=-1)[..., :size]
