"""The encoder and its head, trained from nothing on the labels of the probe: what pre-training must beat.

AdamW, 1e-3 after a tenth of the steps of warm-up, then cosine to zero; weight decay 0.05; gradients
clipped at norm 1. No choice is made, so nothing is held out of the training examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from taichu_jax.models.layers import Encoded
from taichu_jax.probing.collect import BATCH, inputs, passed
from taichu_jax.probing.encoder import Encoder
from taichu_jax.probing.examples import Examples

PyTree = Any
RATE, DECAY, CLIP = 1e-3, 0.05, 1.0


@dataclasses.dataclass(frozen=True)
class Head:
    """A linear map behind the last states.

    Attributes:
      outputs: of the map.
      read: (Encoded, inputs) -> features [..., D].
      loss: (logits, Encoded, targets) -> float32 scalar.
    """

    outputs: int
    read: Callable[[Encoded, tuple], jax.Array]
    loss: Callable[[jax.Array, Encoded, jax.Array], jax.Array]


def from_scratch(
    encoder: Encoder,
    head: Head,
    examples: Examples,
    train: Sequence[int],
    targets: np.ndarray,
    test: Sequence[int],
    *,
    steps: int,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(logits [M, ...], mask bool [M, N] of the states) of the test examples.

    Args:
      targets: [N, ...], what `head.loss` compares with, for every training row.
    """
    width = encoder.shapes.tokens.shape[-1]
    params = {
        "encoder": encoder.create(),
        "head": {
            "kernel": np.zeros((width, head.outputs), np.float32),
            "bias": np.zeros(head.outputs, np.float32),
        },
    }
    warm = max(1, steps // 10)
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, warm, max(steps, warm + 1))
    optimiser = optax.chain(
        optax.clip_by_global_norm(CLIP), optax.adamw(schedule, weight_decay=DECAY)
    )

    def logits(params, arrays):
        encoded = encoder.hidden_states(params["encoder"], arrays)
        features = head.read(encoded, arrays).astype(jnp.float32)
        return features @ params["head"]["kernel"] + params["head"]["bias"], encoded

    @jax.jit
    def step(params, state, arrays, wanted):
        def loss(params):
            return head.loss(*logits(params, arrays), wanted)

        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state, draw = jax.jit(optimiser.init)(params), np.random.default_rng(seed)
    for _ in range(steps):
        chosen = draw.integers(0, len(train), BATCH)
        arrays = inputs(encoder, examples, [train[i] for i in chosen])
        params, state = step(params, state, arrays, targets[chosen])

    trained: Any = dataclasses.replace(encoder, params=params, hidden_states=logits)
    found = list(passed(trained, examples, test, _with_mask))
    return np.concatenate([x for x, _ in found]), np.concatenate([mask for _, mask in found])


def _with_mask(found: Any, arrays: tuple) -> tuple[jax.Array, jax.Array]:
    del arrays
    scores, encoded = found
    return scores, encoded.mask
