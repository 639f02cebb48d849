"""Variants of a block, against their formulas; whole models: tests/parity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import ACTIVATIONS
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import FeedForward, Transformer

X = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
MASK = np.ones((2, 3), bool)


def network(**fields):
    model = Transformer(1, 2, 1.5, style=Style(**fields))
    return model, model.init(jax.random.key(0), X, MASK)["params"]


def test_activations():
    x = np.linspace(-4, 4, 17)
    from math import erf

    exact = np.array([v * (1 + erf(v / 2**0.5)) / 2 for v in x])
    np.testing.assert_allclose(ACTIVATIONS["gelu"](jnp.array(x)), exact, atol=1e-6)
    tanh = x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(ACTIVATIONS["gelu_tanh"](jnp.array(x)), tanh, atol=1e-6)
    np.testing.assert_allclose(
        ACTIVATIONS["quick_gelu"](jnp.array(x)), x / (1 + np.exp(-1.702 * x)), atol=1e-6
    )
    np.testing.assert_array_equal(ACTIVATIONS["relu"](jnp.array(x)), np.maximum(x, 0))
    np.testing.assert_allclose(ACTIVATIONS["silu"](jnp.array(x)), x / (1 + np.exp(-x)), atol=1e-6)


def test_post_norm_states_are_normal():
    model, params = network(norm="post", final_norm=False)
    last, layers = model.apply({"params": params}, X, MASK)
    assert "norm" not in params and len(layers) == 2
    np.testing.assert_array_equal(last, layers[-1])
    np.testing.assert_allclose(last.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(last.var(-1), 1, atol=1e-3)


def test_layer_scale():
    """At 0 a pre-norm block is the identity; the change grows with the factor."""
    model, params = network(layer_scale=1e-3)
    block = params["block_0"]
    np.testing.assert_array_equal(block["attention_scale"], np.full(8, 1e-3, np.float32))

    def change(attention, feed_forward):
        scales = {
            "attention_scale": np.full(8, attention, np.float32),
            "feed_forward_scale": np.full(8, feed_forward, np.float32),
        }
        _, layers = model.apply({"params": params | {"block_0": block | scales}}, X, MASK)
        return layers[-1] - X

    np.testing.assert_array_equal(change(0, 0), 0)
    half, whole = change(0.5, 0), change(1, 0)
    assert np.abs(whole).max() > 0.1
    np.testing.assert_allclose(2 * half, whole, atol=1e-5)
    plain, _ = network()
    bare = {k: v for k, v in block.items() if not k.endswith("_scale")}
    _, layers = plain.apply({"params": params | {"block_0": bare}}, X, MASK)
    np.testing.assert_allclose(change(1, 1), layers[-1] - X, atol=1e-6)


def test_biases():
    _, params = network(query_bias=False, value_bias=False)
    attention = params["block_0"]["attention"]
    assert {k for k, v in attention.items() if "bias" in v} == {"key", "out"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"norm": "both"}, "style.norm='both'; .*valid: post, pre"),
        ({"activation": "gelu_new"}, "style.activation='gelu_new'; .*did you mean|valid"),
        ({"epsilon": 0.0}, "style.epsilon=0.0: must be above 0"),
    ],
)
def test_wrong_settings(fields, told):
    with pytest.raises(UserError, match=told):
        Style(**fields)


def test_gated():
    """SwiGLU: silu(x gate) times x up."""
    _, params = network(activation="silu", gated=True)
    layer = jax.tree.map(np.asarray, params["block_0"]["feed_forward"])
    assert set(layer) == {"gate", "up", "down"} and layer["gate"]["kernel"].shape == (8, 12)
    layer = {name: {**part, "bias": part["bias"] + 0.1} for name, part in layer.items()}
    found = FeedForward(12, activation="silu", gated=True).apply({"params": layer}, X)

    def product(name, x):
        return x @ layer[name]["kernel"] + layer[name]["bias"]

    gate = product("gate", X.astype(np.float64))
    hidden = gate / (1 + np.exp(-gate)) * product("up", X)
    np.testing.assert_allclose(found, product("down", hidden), atol=1e-5)
