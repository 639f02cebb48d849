"""Greedy text from a transducer: at every node of the lattice its likeliest next step.

k = argmax_k p(k | t, u);  the blank: t <- t + 1, else y_u = k, u <- u + 1;  until t = T
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.models.layers import Encoded
from taichu_jax.ops.vocabulary import PAD

BLANK = PAD


def greedy(nets, predictor: str, joiner: str, encoded: Encoded, length: int) -> jax.Array:
    """Labels int32 [B, length] of every row, filled with [PAD]; a full row only listens on.

    A label written costs the prediction network's states of the whole row anew: it keeps no state
    between calls, and rows write at different times.
    """
    states, frames = encoded.tokens, encoded.mask.sum(-1)
    batch, rows = states.shape[0], jnp.arange(states.shape[0])
    labels = jnp.full((batch, length), PAD, jnp.int32)

    def goes_on(carry):
        return (carry[0] < frames).any()

    def step(carry):
        t, u, labels, predictions = carry
        here = states[rows, jnp.minimum(t, states.shape[1] - 1)][:, None]
        written = predictions[rows, u][:, None]
        scores = nets(joiner, here, written)[:, 0, 0].astype(jnp.float32)
        chosen = scores.argmax(-1).astype(jnp.int32)
        writes = (chosen != BLANK) & (t < frames) & (u < length)
        place = jnp.minimum(u, length - 1)
        labels = labels.at[rows, place].set(jnp.where(writes, chosen, labels[rows, place]))
        predictions = jax.lax.cond(
            writes.any(), lambda y: nets(predictor, y).astype(predictions.dtype),
            lambda _: predictions, labels,
        )  # fmt: skip
        return t + ~writes, u + writes, labels, predictions

    start = jnp.zeros(batch, jnp.int32)
    carry = (start, start, labels, nets(predictor, labels))
    return jax.lax.while_loop(goes_on, step, carry)[2]
