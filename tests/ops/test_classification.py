import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.classification import cross_entropy, first_choice


def example(seed=0, shape=(3, 4), classes=6):
    rng = np.random.default_rng(seed)
    logits = (2 * rng.normal(size=(*shape, classes))).astype(np.float32)
    return logits, rng.integers(0, classes, shape).astype(np.int32), rng.uniform(size=shape) < 0.6


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_is_the_formula(smoothing):
    """sum over classes of -q log p with q = (1 - s) [class is the label] + s / V."""
    logits, labels, where = example()
    total = right = count = 0
    for index in zip(*np.nonzero(where), strict=True):
        scores = logits[index].astype(np.float64)
        log_p = scores - np.log(np.exp(scores).sum())
        for k in range(len(scores)):
            q = (1 - smoothing) * (k == labels[index]) + smoothing / len(scores)
            total -= q * log_p[k]
        right += scores.argmax() == labels[index]
        count += 1
    assert 0 < count < where.size
    got = cross_entropy(logits, labels, where, smoothing)
    np.testing.assert_allclose(got, (total, right, count), rtol=1e-5)


def test_impossible_classes_are_as_if_they_were_not_there():
    logits, labels, where = example(classes=4)
    more = np.concatenate([logits, np.full_like(logits[..., :2], 5.0)], -1)
    for smoothing in (0.0, 0.1):
        got = cross_entropy(more, labels, where, smoothing, np.arange(6) < 4)
        np.testing.assert_allclose(got, cross_entropy(logits, labels, where, smoothing), rtol=1e-6)


def test_smoothing_is_best_at_the_smoothed_distribution():
    """With s = 0.2 over four classes the best p of the label is 1 - 0.2 + 0.2 / 4 = 0.85."""
    best = np.log(np.array([[0.85, 0.05, 0.05, 0.05]], np.float32))
    label, where = np.zeros(1, np.int32), np.ones(1, bool)
    gradient = jax.grad(lambda x: cross_entropy(x, label, where, 0.2)[0])(best)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_nothing_counts():
    logits, labels, where = example()
    got = cross_entropy(logits, labels, np.zeros_like(where), 0.1)
    assert got == (0, 0, 0)


def test_half_precision_is_summed_in_float32():
    logits, labels, where = example()
    half = jnp.asarray(logits, jnp.bfloat16)
    got = cross_entropy(half, labels, where)
    assert all(x.dtype == jnp.float32 for x in got)
    want = cross_entropy(np.asarray(half, np.float32), labels, where)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16])
def test_the_first_choice_is_that_of_argmax(kind):
    scores = np.random.default_rng(0).integers(-3, 3, (50, 2, 7)).astype(kind)  # many are equal
    scores[0] = 0
    scores[1, 0, 3:] = -np.inf
    found = first_choice(jnp.asarray(scores))
    np.testing.assert_array_equal(found, scores.astype(np.float32).argmax(-1))
    assert found.dtype == jnp.int32


def test_no_class_is_the_choice_among_scores_that_are_no_numbers():
    scores = jnp.asarray([[0.0, jnp.nan, 1.0], [0.0, 2.0, 1.0]])
    np.testing.assert_array_equal(first_choice(scores), [3, 1])
