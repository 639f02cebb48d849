"""Attentive probe: learned queries look at the tokens of one layer, a linear map reads what they found.

One cross-attention with a learned query and a linear classifier (arXiv 2202.03026, section 4.1). With a
single query, its product with the keys' matrix is one vector a head, and the values' matrix and the
classifier are one map; these products are learnt as they are, so nothing is lost:
    weights_h = softmax over real tokens of x q_h / sqrt(D),    logits = [sum_n weights_hn x_n]_h W + b.
Every channel is standardised over the real training tokens.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.probing.heads.fitting import best_decay, cross_entropy, fit, in_parts

HEADS = 4


def predict(
    train: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    development: np.ndarray,
    test: tuple[np.ndarray, np.ndarray],
    classes: int,
    seed: int = 0,
) -> np.ndarray:
    """Predicted labels [M] of test tokens.

    Args:
      train, test: tokens [N, T, D] and bool [N, T], which are real.
      labels: int [N], numbers of classes.
      development: bool [N], the training examples on which the weight decay is chosen.
    """
    scale = statistics(*train)
    (states, mask), rest = train, ~development
    labels = labels.astype(np.int32)
    start = _start(states.shape[-1], classes, seed)

    def trained(rows, decay):
        data = (states[rows], mask[rows], labels[rows])
        return fit(_loss, start | scale, data, decay=decay, seed=seed)

    def score(decay):
        params = trained(rest, decay)
        return float((_labels(params, states[~rest], mask[~rest]) == labels[~rest]).mean())

    return _labels(trained(slice(None), best_decay(score)), *test)


def statistics(states: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and 1 / deviation [D] of the real tokens."""
    total, square = np.zeros(states.shape[-1]), np.zeros(states.shape[-1])
    for rows, real in zip(states, mask, strict=True):  # row by row: a float64 copy would be large
        some = rows[real].astype(np.float64)
        total, square = total + some.sum(0), square + np.square(some).sum(0)
    count = max(1, int(mask.sum()))
    variance = np.maximum(square / count - np.square(total / count), 0)
    return {
        "mean": (total / count).astype(np.float32),
        "inverse": (1 / np.sqrt(variance + 1e-6)).astype(np.float32),
    }


def logits(params: dict[str, jax.Array], states: jax.Array, mask: jax.Array) -> jax.Array:
    """Scores [B, classes] of tokens [B, T, D]."""
    mean, inverse = (jax.lax.stop_gradient(params[k]) for k in ("mean", "inverse"))
    x = (states.astype(jnp.float32) - mean) * inverse
    scores = jnp.einsum("btd,hd->bht", x, params["query"]) * x.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e9), -1)
    found = jnp.einsum("bht,btd->bhd", weights, x).reshape(len(x), -1)
    return found @ params["kernel"] + params["bias"]


def _start(width: int, classes: int, seed: int) -> dict[str, np.ndarray]:
    query = 0.02 * np.random.default_rng(seed).normal(size=(HEADS, width))
    return {
        "query": query.astype(np.float32),
        "kernel": np.zeros((HEADS * width, classes), np.float32),
        "bias": np.zeros(classes, np.float32),
    }


def _loss(params, batch):
    states, mask, labels = batch
    return cross_entropy(logits(params, states, mask), labels)


_scores = jax.jit(logits)


def _labels(params, states, mask) -> np.ndarray:
    return in_parts(_scores, params, states, mask).argmax(-1)
