"""The Gumbel choice: whom it draws, what its gradient is."""

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.gumbel import choose_code

SCORES = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_without_a_key_it_is_argmax():
    chosen, indices = jax.jit(choose_code)(SCORES, None, 1.0)
    np.testing.assert_array_equal(indices, SCORES.argmax(-1))
    np.testing.assert_array_equal(chosen, np.eye(5)[SCORES.argmax(-1)])


def test_it_draws_from_the_softmax_whatever_the_temperature():
    scores = jnp.broadcast_to(SCORES[0, 0], (20_000, 5))
    indices = jax.jit(choose_code)(scores, jax.random.key(1), 0.3)[1]
    p = softmax(SCORES[0, 0])
    share = np.bincount(np.asarray(indices), minlength=5) / 20_000
    assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / 20_000)).all()


def test_gradient_is_the_softmaxs():
    """d/ds of w . softmax((s + g) / t), though the value is the hard choice's."""
    key, temperature = jax.random.key(2), 0.7
    weight = np.random.default_rng(1).normal(size=SCORES.shape).astype(np.float32)
    value, grad = jax.jit(
        jax.value_and_grad(lambda s: (choose_code(s, key, temperature)[0] * weight).sum())
    )(SCORES)
    noisy = SCORES + np.asarray(jax.random.gumbel(key, SCORES.shape))
    soft = softmax(noisy / temperature)
    expected = soft * (weight - (soft * weight).sum(-1, keepdims=True)) / temperature
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
    hard = np.eye(5)[noisy.argmax(-1)]
    np.testing.assert_allclose(value, (hard * weight).sum(), rtol=1e-5)
