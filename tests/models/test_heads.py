"""Heads against formulas in NumPy."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from taichu_jax.models.heads import ClampedLogitScale, Projection

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


def test_an_unknown_place_of_the_norm_or_activation_is_named():
    with pytest.raises(ValueError, match="norm='between'; valid: after, before, none"):
        Projection(3, hidden=5, norm="between").init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"activation=.swish.; valid: gelu, .*, tanh"):
        Projection(3, hidden=5, activation="swish").init(jax.random.key(0), X)


def test_without_a_norm_and_with_tanh():
    """BERT's pooler and a linear layer on top."""
    model = Projection(3, hidden=5, activation="tanh", norm="none")
    params = model.init(jax.random.key(0), X)["params"]
    assert set(params) == {"up", "out"}
    expected = np.tanh(X @ np.asarray(params["up"]["kernel"])) @ np.asarray(params["out"]["kernel"])
    np.testing.assert_allclose(model.apply({"params": params}, X), expected, rtol=1e-4, atol=1e-5)


def test_flavas_scale_is_clamped_and_can_come_back():
    """exp of the logarithm between 0 and 4.6052, of which the derivative is the value itself."""

    @jax.jit
    @jax.vmap
    def run(log):
        model = ClampedLogitScale()
        start = model.init(jax.random.key(0))["params"]["logit_scale"]
        value = jax.value_and_grad(lambda x: model.apply({"params": {"logit_scale": x}}))
        return start, *value(log)

    logs = np.array([-1.0, 0.5, 5.0], np.float32)
    start, value, gradient = run(logs)
    expected = np.exp([0.0, 0.5, 4.6052])
    np.testing.assert_allclose(start, math.log(1 / 0.07), rtol=1e-6)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
