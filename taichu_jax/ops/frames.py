"""Mel frames grouped into tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import within, zero_beyond


def stack_frames(mel: jax.Array, lengths: jax.Array, stride: int) -> jax.Array:
    """[B, ceil(F / stride), stride * M] of frames [B, F, M]; zeros beyond `lengths` [B]."""
    batch, frames, bands = mel.shape
    tokens = -(-frames // stride)
    mel = zero_beyond(mel, within(lengths, frames))
    mel = jnp.pad(mel, ((0, 0), (0, tokens * stride - frames), (0, 0)))
    return mel.reshape(batch, tokens, stride * bands)
