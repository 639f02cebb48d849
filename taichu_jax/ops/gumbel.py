"""A discrete choice with a gradient: the Gumbel softmax (arXiv 1611.01144), straight through."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def choose_code(
    scores: jax.Array, rng: jax.Array | None, temperature: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """(one-hot float32 [..., V] of the choice, int32 [...] the choice) among scores [..., V].

    Args:
      rng: key of the Gumbel noise g. The choice is then argmax(scores + g), a draw from the softmax of
        the scores, and its gradient that of softmax((scores + g) / temperature). Without a key the
        choice is argmax(scores), and no noise enters the gradient.
      temperature: of the softmax that gives the gradient; may be traced.
    """
    scores = scores.astype(jnp.float32)
    noisy = scores if rng is None else scores + jax.random.gumbel(rng, scores.shape)
    indices = noisy.argmax(-1)
    hard = jax.nn.one_hot(indices, scores.shape[-1])
    soft = jax.nn.softmax(noisy / jnp.asarray(temperature, jnp.float32))
    return hard + (soft - jax.lax.stop_gradient(soft)), indices
