"""Latents some steps ahead, told apart from negatives (CPC, wav2vec, vq-wav2vec).

A state c_t predicts the latents z_{t+k} of the steps k = first .. first + K - 1. Everything here is
lined up with the target: entry [b, n, j] belongs to the target z_n and to the state first + j steps
before it. So every target has its negatives once, whoever predicts it, and none of them is the
target.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.ops.negatives import sample_in_groups


class StepScores(NamedTuple):
    """Products of predictions with latents, float32.

    Attributes:
      own: [B, N, K], with the target itself.
      others: [B, N, K, count], with its negatives.
      there: bool [B, N, K], where target, state and at least one negative exist.
    """

    own: jax.Array
    others: jax.Array
    there: jax.Array


def line_up(predictions: jax.Array, first: int) -> jax.Array:
    """[B, N, K, D]: at [b, n, j] what the state first + j steps before n said; zeros if there is none."""
    length, steps = predictions.shape[1:3]
    moved = []
    for j in range(steps):
        k = min(first + j, length)
        moved.append(jnp.pad(predictions[:, : length - k, j], ((0, 0), (k, 0), (0, 0))))
    return jnp.stack(moved, axis=2)


def step_scores(
    rng: jax.Array,
    predictions: jax.Array,
    latents: jax.Array,
    real: jax.Array,
    groups: jax.Array,
    *,
    steps: int,
    first: int,
    count: int,
) -> StepScores:
    """Scores of every target and of `count` negatives for it.

    Args:
      predictions: [B, N, K * D], from the states.
      latents: z, [B, N, D].
      real: bool [B, N], the first steps of every row.
      groups: int32 [B]; negatives come from rows of the same number.
      steps: K.
      first: how far ahead the first prediction lies.
    """
    batch, length, width = latents.shape
    if predictions.shape[-1] != steps * width:
        raise UserError(
            f"the head gives {predictions.shape[-1]} features; {steps} steps of latents {width} wide need"
            f" {steps * width}"
        )
    if not 1 <= first < length:
        raise UserError(
            f"first={first}: must be from 1 to {length - 1}, below the batch's latent steps"
        )
    told = line_up(predictions.reshape(batch, length, steps, width), first)
    others, usable = sample_in_groups(rng, real, groups, count)
    negatives = latents.reshape(batch * length, width)[others]
    product = {"preferred_element_type": jnp.float32}
    ahead = jnp.arange(first, first + steps)
    return StepScores(
        own=jnp.einsum("bnkd,bnd->bnk", told, latents, **product),
        others=jnp.einsum("bnkd,bncd->bnkc", told, negatives, **product),
        there=usable[..., None] & (jnp.arange(length)[:, None] >= ahead),
    )


def binary_losses(scores: StepScores, weight: float | None = None) -> jax.Array:
    """-log sigmoid(own) - weight * mean over negatives of log sigmoid(-other), [B, N, K].

    Args:
      weight: lambda; None for the number of negatives, which makes the mean a sum.
    """
    weight = scores.others.shape[-1] if weight is None else weight
    against = jax.nn.softplus(scores.others).mean(-1)
    return jax.nn.softplus(-scores.own) + weight * against
