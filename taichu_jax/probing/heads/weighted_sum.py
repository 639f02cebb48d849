"""Weighted sum of layers, then a linear map (SUPERB, arXiv 2105.01051, section 3).

    logits = (sum over layers of softmax(a)_l x_l) W + b
Every channel of every layer is standardised over the training examples, so that a layer is not preferred
for being large. A mean over tokens may be taken before the sum: it commutes with it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from taichu_jax.probing.heads.fitting import best_decay, cross_entropy, fit, in_parts


class Predicted(NamedTuple):
    """Labels [M], and the share [L] of each layer in the sum."""

    labels: np.ndarray
    shares: np.ndarray


def predict(
    train: np.ndarray,
    labels: np.ndarray,
    development: np.ndarray,
    test: np.ndarray,
    classes: int,
    seed: int = 0,
) -> Predicted:
    """Predicted labels of test [M, L, D].

    Args:
      train: [N, L, D].
      labels: int [N], numbers of classes.
      development: bool [N], the training examples on which the weight decay is chosen.
    """
    mean, deviation = train.mean(0), train.std(0)
    train, test = ((x - mean) / (deviation + 1e-3) for x in (train, test))
    labels, rest = labels.astype(np.int32), ~development
    layers, width = train.shape[1:]

    def trained(rows, decay):
        start = {
            "layers": np.zeros(layers, np.float32),
            "kernel": np.zeros((width, classes), np.float32),
            "bias": np.zeros(classes, np.float32),
        }
        return fit(_loss, start, (train[rows], labels[rows]), decay=decay, seed=seed)

    def score(decay):
        params = trained(rest, decay)
        return float((_labels(params, train[~rest]) == labels[~rest]).mean())

    params = trained(slice(None), best_decay(score))
    return Predicted(_labels(params, test), softmax(np.asarray(params["layers"])))


def logits(params: dict[str, jax.Array], states: jax.Array) -> jax.Array:
    """Scores [..., classes] of states [..., L, D]."""
    mixed = jnp.einsum(
        "...ld,l->...d", states.astype(jnp.float32), jax.nn.softmax(params["layers"])
    )
    return mixed @ params["kernel"] + params["bias"]


def _loss(params, batch):
    states, labels = batch
    return cross_entropy(logits(params, states), labels)


_scores = jax.jit(logits)


def _labels(params, states) -> np.ndarray:
    return in_parts(_scores, params, states).argmax(-1)
