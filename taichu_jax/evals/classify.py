"""What can be read off frozen features: a linear probe and nearest neighbours.

Linear probe: logistic regression on standardised features, its inverse regularisation chosen on a fifth
of the training set and then fitted on all of it. Nearest neighbours: the k = 20 most similar training
examples by cosine vote with exp(cosine / 0.07) (Wu et al., arXiv 1805.01978, sections 3.4 and 4.1; the
same defaults as in DINO, arXiv 2104.14294).
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
K, TEMPERATURE = 20, 0.07


def linear_probe(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Predicted labels [M] of test [M, D], learnt from train [N, D] and labels [N]."""
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    if np.unique(labels).size == 1:
        return np.full(len(test), labels[0])
    order = np.random.default_rng(seed).permutation(len(train))
    part, rest = order[: len(order) // 5], order[len(order) // 5 :]
    best, chosen = -1.0, STRENGTHS[0]
    for strength in STRENGTHS:
        if np.unique(labels[rest]).size < 2 or not part.size:
            break
        right = (
            _fit(train[rest], labels[rest], strength).predict(train[part]) == labels[part]
        ).mean()
        if right > best:
            best, chosen = right, strength
    return _fit(train, labels, chosen).predict(test)


def _fit(features: np.ndarray, labels: np.ndarray, strength: float) -> LogisticRegression:
    # On problems this small threads cost more than they give: forty times more on a busy machine.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Two hundred steps decide the accuracy long before the last digits of the weights.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=200).fit(features, labels)


def nearest_neighbours(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """Predicted labels [M] of test [M, D] by weighted votes of train [N, D]."""
    cosine = _unit(test) @ _unit(train).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    similarity = np.take_along_axis(cosine, nearest, axis=1)
    weight = np.exp((similarity - similarity[:, :1]) / temperature)
    classes, numbers = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(test), classes.size))
    np.add.at(votes, (np.arange(len(test))[:, None], numbers[nearest]), weight)
    return classes[votes.argmax(1)]


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """In percent."""
    return 100.0 * float((predicted == labels).mean())


def majority(train_labels: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy in percent of always saying the commonest training label."""
    values, counts = np.unique(train_labels, return_counts=True)
    return accuracy(np.full(len(labels), values[counts.argmax()]), labels)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
