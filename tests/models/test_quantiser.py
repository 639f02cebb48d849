"""The Gumbel quantiser against its formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.quantiser import ProductQuantiser

MODEL = ProductQuantiser(groups=2, codes=5, dim=6)
X = np.random.default_rng(0).normal(size=(3, 4, 7)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), X)


def scores_of(params):
    dense = params["params"]["scores"]
    return (X @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])).reshape(3, 4, 2, 5)


def test_without_noise_it_is_argmax_and_look_up(params):
    out = jax.jit(MODEL.apply)(params, X)
    scores, entries = scores_of(params), np.asarray(params["params"]["code_embedding"])
    np.testing.assert_array_equal(out.indices, scores.argmax(-1))
    np.testing.assert_allclose(out.probabilities, softmax(scores), rtol=1e-4, atol=1e-6)
    for b in range(3):
        for n in range(4):
            expected = [entries[g, scores[b, n, g].argmax()] for g in range(2)]
            np.testing.assert_allclose(out.vectors[b, n], np.concatenate(expected), rtol=1e-5)


def test_noise_draws_from_the_softmax_whatever_the_temperature(params):
    x = jnp.broadcast_to(X[:1, :1] * 0.3, (20_000, 1, 7))
    out = jax.jit(MODEL.apply)(params, x, jax.random.key(1), 0.3)
    p = np.asarray(out.probabilities[0, 0])
    for g in range(2):
        share = np.bincount(np.asarray(out.indices[:, 0, g]), minlength=5) / 20_000
        assert (np.abs(share - p[g]) <= 5 * np.sqrt(p[g] * (1 - p[g]) / 20_000) + 1e-4).all()


def test_gradient_is_straight_through(params):
    """d/ds of r . sum_v softmax((s + g) / t)_v e_v, though the value is the hard choice's."""
    key, temperature = jax.random.key(2), 0.7
    weight = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)

    def value(params):
        return (MODEL.apply(params, X, key, temperature).vectors * weight).sum()

    grad = jax.jit(jax.grad(value))(params)["params"]
    noise = np.asarray(jax.random.gumbel(key, (3, 4, 2, 5)))
    noisy = scores_of(params) + noise
    soft = softmax(noisy / temperature)
    entries = np.asarray(params["params"]["code_embedding"])
    by_code = np.einsum("bngd,gvd->bngv", weight.reshape(3, 4, 2, 3), entries)
    by_score = soft * (by_code - (soft * by_code).sum(-1, keepdims=True)) / temperature
    kernel = np.einsum("bnd,bnk->dk", X, by_score.reshape(3, 4, 10))
    np.testing.assert_allclose(grad["scores"]["kernel"], kernel, rtol=1e-3, atol=1e-5)
    hard = np.eye(5)[noisy.argmax(-1)]
    codes = np.einsum("bngv,bngd->gvd", hard, weight.reshape(3, 4, 2, 3))
    np.testing.assert_allclose(grad["code_embedding"], codes, rtol=1e-4, atol=1e-5)
