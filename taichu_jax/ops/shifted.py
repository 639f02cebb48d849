"""The error of predictions of a frame further on (APC and its relatives)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.ops.lengths import within, zero_beyond


def shifted_l1(
    predicted: jax.Array, mel: jax.Array, lengths: jax.Array, shift: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over bands and frames t of |x_{t+n} - y_t| and of |x_{t+n} - x_t|, and what both count.

    Only the frames t whose target t + n is real take part. The second sum is what repeating the last
    frame would cost: a prediction is worth something below it.

    Args:
      predicted: y, [B, F, M]; the last n have no target.
      mel: x, [B, F, M].
      lengths: int [B], the real frames.
      shift: n.
    """
    frames = mel.shape[1]
    if not 1 <= shift < frames:
        raise UserError(f"shift={shift}: must be from 1 to {frames - 1}, below the batch's frames")
    if predicted.shape != mel.shape:
        raise UserError(
            f"{predicted.shape[1]} predictions of {predicted.shape[2]} bands for {frames} mel frames of"
            f" {mel.shape[2]}: the encoder must give one state per frame (stride=1), the head one number"
            " per band"
        )
    mel = zero_beyond(mel, within(lengths, frames)).astype(jnp.float32)
    there = within(lengths - shift, frames - shift)[..., None]
    target = mel[:, shift:]

    def total(other):
        return jnp.where(there, jnp.abs(target - other.astype(jnp.float32)), 0.0).sum()

    count = there.sum().astype(jnp.float32) * mel.shape[2]
    return total(predicted[:, :-shift]), total(mel[:, :-shift]), count
