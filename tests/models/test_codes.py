"""The group quantiser against loops over groups."""

import jax
import numpy as np
import pytest

from taichu_jax.models.codes import GroupQuantiser

MODEL = GroupQuantiser(groups=2, codes=5)
X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    params = jax.jit(MODEL.init)(jax.random.key(0), X)["params"]
    bias = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    return {"params": params | {"scores_bias": bias}}


@pytest.mark.parametrize("key", [None, 3], ids=["argmax", "noise"])
def test_every_group_reads_its_own_channels_and_becomes_its_own_entry(params, key):
    key = None if key is None else jax.random.key(key)
    out = jax.jit(MODEL.apply)(params, X, key)
    p = jax.tree.map(np.asarray, params["params"])
    noise = 0 if key is None else np.asarray(jax.random.gumbel(key, (3, 4, 2, 5)))
    for g in range(2):
        part = slice(3 * g, 3 * g + 3)
        scores = X[..., part] @ p["scores_kernel"][g] + p["scores_bias"][g]
        chosen = (scores + (noise if key is None else noise[:, :, g])).argmax(-1)
        np.testing.assert_array_equal(out.indices[..., g], chosen)
        np.testing.assert_allclose(
            out.vectors[..., part], p["code_embedding"][g][chosen], rtol=1e-5
        )
        e = np.exp(scores)
        expected = e / e.sum(-1, keepdims=True)
        np.testing.assert_allclose(out.probabilities[..., g, :], expected, rtol=1e-4, atol=1e-6)


def test_starts_like_the_authors_linear_layers():
    params = GroupQuantiser(groups=4, codes=64).init(
        jax.random.key(0), np.ones((1, 512), np.float32)
    )["params"]
    for name, inputs in [("scores_kernel", 128), ("code_embedding", 64)]:
        weights, bound = np.asarray(params[name]), inputs**-0.5
        assert 0.99 * bound < np.abs(weights).max() <= bound
        assert abs(weights.mean()) < 0.01 * bound


def test_width_must_divide():
    with pytest.raises(ValueError, match="width 6 is not a multiple of groups 4"):
        GroupQuantiser(groups=4).init(jax.random.key(0), X)
