"""Probes on data where the answer is known, and against the formula in loops."""

import math

import numpy as np

from taichu_jax.evals import classify


def blobs(count, seed, spread=0.3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    centres = np.random.default_rng(9).normal(size=(4, 12))
    return centres[labels] + spread * rng.normal(size=(count, 12)), labels


def test_separable_classes_are_found_and_noise_is_not():
    train, labels = blobs(300, 0)
    test, wanted = blobs(200, 1)
    assert classify.accuracy(classify.linear_probe(train, labels, test), wanted) > 98
    assert classify.accuracy(classify.nearest_neighbours(train, labels, test), wanted) > 98
    rng = np.random.default_rng(2)
    noise, other = rng.normal(size=(300, 12)), rng.normal(size=(200, 12))
    for predict in (classify.linear_probe, classify.nearest_neighbours):
        assert classify.accuracy(predict(noise, labels, other), wanted) < 40


def test_linear_probe_does_not_depend_on_the_scale_of_a_feature():
    train, labels = blobs(200, 0, spread=1.5)
    test, _ = blobs(100, 1, spread=1.5)
    scale = np.logspace(-3, 3, 12)
    plain = classify.linear_probe(train, labels, test)
    scaled = classify.linear_probe(train * scale + 5, labels, test * scale + 5)
    assert (plain == scaled).mean() > 0.99


def test_nearest_neighbours_equals_the_formula_in_loops():
    rng = np.random.default_rng(3)
    train, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40) * 2
    test = rng.normal(size=(15, 5))
    got = classify.nearest_neighbours(train, labels, test, k=7, temperature=0.07)
    for x, answer in zip(test, got, strict=True):
        cosines = [float(x @ t / np.linalg.norm(x) / np.linalg.norm(t)) for t in train]
        votes: dict[int, float] = {}
        for i in sorted(range(40), key=lambda i: -cosines[i])[:7]:
            votes[labels[i]] = votes.get(labels[i], 0.0) + math.exp(cosines[i] / 0.07)
        assert answer == max(votes, key=votes.get)


def test_few_examples_and_one_class_are_no_error():
    train, test = np.eye(3), np.eye(3)
    assert (classify.linear_probe(train, np.array([5, 5, 5]), test) == 5).all()
    assert (classify.nearest_neighbours(train, np.array([1, 2, 3]), test) == [1, 2, 3]).all()


def test_majority_is_learnt_on_training_labels():
    assert classify.majority(np.array([1, 1, 2]), np.array([2, 2, 2, 1])) == 25.0
