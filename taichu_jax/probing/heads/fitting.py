"""Trains a small head on arrays in memory: AdamW with a cosine schedule, in one compiled loop.

The weight decay is chosen on the development part, then the head is trained again on everything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

PyTree = Any
Loss = Callable[[PyTree, tuple], jax.Array]
DECAYS = (1e-3, 1e-1, 10.0)
STEPS, SIZE, RATE = 300, 64, 1e-2
PART = 256  # rows


def fit(
    loss: Loss,
    params: PyTree,
    data: Sequence[Any],
    *,
    decay: float,
    seed: int = 0,
    steps: int = STEPS,
    size: int = SIZE,
    rate: float = RATE,
) -> PyTree:
    """The parameters after `steps` steps on batches drawn from data, arrays [N, ...].

    Args:
      loss: (params, batch) -> float32 scalar; a function of a module, since its program is kept.
      decay: decoupled weight decay of matrices; vectors are not decayed.
    """
    rows = np.random.default_rng(seed).integers(0, len(data[0]), (steps, size))
    arrays = tuple(jnp.asarray(_padded(x)) for x in data)
    return _trained(loss, params, arrays, jnp.asarray(rows), decay, rate)


@functools.partial(jax.jit, static_argnames=("loss",))
def _trained(loss, params, data, batches, decay, rate):
    schedule = optax.cosine_decay_schedule(1.0, len(batches))
    optimiser = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(
            decay, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
        ),
        optax.scale_by_schedule(schedule),
        optax.scale(-rate),
    )

    def step(carry, rows):
        params, state = carry
        gradient = jax.grad(loss)(params, tuple(x[rows] for x in data))
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), batches)
    return params


def in_parts(function: Callable[..., jax.Array], params: PyTree, *arrays: np.ndarray) -> np.ndarray:
    """`function(params, *arrays)`, PART rows at a time."""
    starts = range(0, len(arrays[0]), PART)
    parts = [
        function(params, *(_padded(x[start : start + PART]) for x in arrays)) for start in starts
    ]
    return np.concatenate([np.asarray(x) for x in parts])[: len(arrays[0])]


def _padded(x: Any) -> np.ndarray:
    """Zeros behind the last row, so that few programs serve all numbers of rows."""
    x = np.asarray(x)
    return np.pad(x, [(0, -len(x) % PART), *[(0, 0)] * (x.ndim - 1)])


def best_decay(score: Callable[[float], float]) -> float:
    """The weight decay with the highest score on the development part."""
    return max(DECAYS, key=score)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch, float32."""
    scores = logits.astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
