"""Whose random numbers an objective uses: its own, or those that several objectives agreed on."""

from __future__ import annotations

import jax

from taichu_jax.ops.random import fold_name


def draw_key(rng: jax.Array, step: jax.Array, draw: str) -> jax.Array:
    """The key for masks and noise: `rng` if `draw` is empty, else one from the step and that name.

    Objectives of one config that name the same draw hide the same steps and choose the same codes. Such
    a draw does not change with the run's seed, nor from one micro-batch of a step to the next.
    """
    return fold_name(jax.random.fold_in(jax.random.key(0), step), draw) if draw else rng
