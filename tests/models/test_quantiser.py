"""The quantisers against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.quantiser import KmeansQuantiser, ProductQuantiser

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


def test_hidden_layer_and_shared_codebook():
    model = ProductQuantiser(groups=2, codes=5, dim=6, hidden=9, shared=True)
    params = jax.jit(model.init)(jax.random.key(0), X)["params"]
    out = jax.jit(model.apply)({"params": params}, X)
    up, scores = params["up"], params["scores"]
    hidden = np.maximum(X @ np.asarray(up["kernel"]) + np.asarray(up["bias"]), 0)
    scores = (hidden @ np.asarray(scores["kernel"])).reshape(3, 4, 2, 5)
    np.testing.assert_allclose(out.probabilities, softmax(scores), rtol=1e-4, atol=1e-6)
    assert params["code_embedding"].shape == (1, 5, 3)
    entries = np.asarray(params["code_embedding"])[0]
    expected = entries[scores.argmax(-1)].reshape(3, 4, 6)
    np.testing.assert_allclose(out.vectors, expected, rtol=1e-5)


KMEANS_X = np.random.default_rng(3).normal(size=(3, 4, 8)).astype(np.float32)


def kmeans(shared=False):
    """A k-means quantiser whose entries are spread, and its latents and entries in NumPy."""
    model = KmeansQuantiser(groups=2, codes=5, dim=6, gamma=0.25, shared=shared)
    params = jax.jit(model.init)(jax.random.key(0), KMEANS_X)["params"]
    spread = jax.random.normal(jax.random.key(1), params["code_embedding"].shape)
    params = params | {"code_embedding": spread, "bias": params["bias"] + 0.3}
    z = np.einsum("bngi,gio->bngo", KMEANS_X.reshape(3, 4, 2, 4), np.asarray(params["kernel"]))
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5) + 0.3
    return model, params, z, np.broadcast_to(np.asarray(spread), (2, 5, 3))


@pytest.mark.parametrize("shared", [False, True])
def test_kmeans_takes_the_nearest_entry(shared):
    model, params, z, entries = kmeans(shared)
    out = jax.jit(model.apply)({"params": params}, KMEANS_X, jax.random.key(2), 0.1)
    for b in range(3):
        for n in range(4):
            penalty = []
            for g in range(2):
                distances = [np.square(z[b, n, g] - e).sum() for e in entries[g]]
                nearest = int(np.argmin(distances))
                assert out.indices[b, n, g] == nearest
                vector = out.vectors[b, n, 3 * g : 3 * g + 3]
                np.testing.assert_allclose(vector, entries[g, nearest], rtol=1e-5, atol=1e-6)
                p = softmax(-np.array(distances))
                np.testing.assert_allclose(out.probabilities[b, n, g], p, rtol=1e-4, atol=1e-6)
                penalty.append(1.25 * distances[nearest] / 6)
            np.testing.assert_allclose(out.penalty[b, n], sum(penalty), rtol=1e-4)


def test_kmeans_gradients():
    """Through the choice as if it were not there; entries learn from the penalty alone."""
    model, params, z, entries = kmeans()
    weight = np.random.default_rng(4).normal(size=(3, 4, 6)).astype(np.float32)

    def value(params, part):
        out = model.apply({"params": params}, KMEANS_X)
        return ((out.vectors * weight).sum(), out.penalty.sum())[part]

    straight, penalty = (jax.jit(jax.grad(value), static_argnums=1)(params, i) for i in (0, 1))
    np.testing.assert_array_equal(straight["code_embedding"], 0)
    np.testing.assert_allclose(straight["bias"], weight.sum((0, 1)).reshape(2, 3), rtol=1e-4)
    distances = np.square(z[..., None, :] - entries).sum(-1)
    hard = np.eye(5)[distances.argmin(-1)]
    error = z - np.einsum("bngv,gvd->bngd", hard, entries)
    learn = np.einsum("bngv,bngd->gvd", hard, -2 * error) / 6
    np.testing.assert_allclose(penalty["code_embedding"], learn, rtol=1e-4, atol=1e-5)
    commit = 0.25 * 2 * error.sum((0, 1)) / 6
    np.testing.assert_allclose(penalty["bias"], commit, rtol=1e-3, atol=1e-5)


def test_errors_name_the_field():
    with pytest.raises(ValueError, match="dim 7 is not a multiple of groups 2"):
        ProductQuantiser(groups=2, codes=5, dim=7).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="7 channels are not a multiple of groups 2"):
        KmeansQuantiser(groups=2, codes=5, dim=6).init(jax.random.key(0), X)
