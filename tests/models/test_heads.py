"""Heads against formulas in NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from taichu_jax.models.heads import Projection

X = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def normal(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("norm", ["before", "after"])
def test_norm_on_either_side_of_the_activation(norm):
    model = Projection(3, hidden=5, activation="relu", norm=norm)
    params = model.init(jax.random.key(0), X)["params"]
    x = X @ np.asarray(params["up"]["kernel"])
    x = relu(normal(x)) if norm == "before" else normal(relu(x))
    expected = x @ np.asarray(params["out"]["kernel"])
    np.testing.assert_allclose(model.apply({"params": params}, X), expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_place_of_the_norm_is_named():
    with pytest.raises(ValueError, match="norm='between'; valid: after, before"):
        Projection(3, hidden=5, norm="between").init(jax.random.key(0), X)
