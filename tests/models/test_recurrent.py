"""Recurrent layers against loops over time in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.recurrent import RecurrentEncoder, VQRecurrentEncoder


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(x, p, width):
    h, out = np.zeros(width), []
    for t in range(len(x)):
        a = x[t] @ p["input"]["kernel"] + p["input"]["bias"]
        u = h @ p["recurrent_kernel"]
        r = sigmoid(a[:width] + u[:width])
        z = sigmoid(a[width : 2 * width] + u[width : 2 * width])
        n = np.tanh(a[2 * width :] + r * (u[2 * width :] + p["recurrent_bias"]))
        h = (1 - z) * n + z * h
        out.append(h)
    return np.array(out)


def lstm(x, p, width):
    h, c, out = np.zeros(width), np.zeros(width), []
    for t in range(len(x)):
        a = x[t] @ p["input"]["kernel"] + p["input"]["bias"] + h @ p["recurrent_kernel"]
        i, f, g, o = (a[k * width : (k + 1) * width] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers_are_the_recurrence(cell):
    model = RecurrentEncoder(width=6, depth=3, cell=cell)
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(2, 9, 5)).astype(np.float32)
    lengths = np.array([9, 4], np.int32)
    params = jax.jit(model.init)(jax.random.key(0), mel, lengths)["params"]
    # biases start at zero, where a wrong sign or place would not show
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    spoiled = np.where(np.arange(9)[:, None] < lengths[:, None, None], mel, np.nan)
    encoded = jax.jit(model.apply)({"params": params}, spoiled, lengths)
    assert encoded.rate == 100.0 and len(encoded.layers) == 4
    weights = jax.tree.map(np.asarray, params)
    for b, n in enumerate(lengths):
        x = mel[b, :n]
        for i in range(3):
            y = {"gru": gru, "lstm": lstm}[cell](x, weights[f"layer_{i}"], 6)
            x = y if i == 0 else x + y
            np.testing.assert_allclose(encoded.layers[i + 1][b, :n], x, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(encoded.tokens[b, n:], 0)
    np.testing.assert_array_equal(encoded.tokens, encoded.layers[-1])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_states_do_not_see_the_future(cell):
    model = RecurrentEncoder(width=4, depth=2, cell=cell)
    mel, lengths = jnp.ones((1, 8, 3)), jnp.array([8])
    params = jax.jit(model.init)(jax.random.key(0), mel, lengths)
    run = jax.jit(model.apply)
    before, after = run(params, mel, lengths), run(params, mel.at[:, 5:].set(-2.0), lengths)
    np.testing.assert_array_equal(before.tokens[:, :5], after.tokens[:, :5])
    assert np.abs(before.tokens[:, 5] - after.tokens[:, 5]).max() > 1e-3


@pytest.mark.parametrize("after", [1, 3])
def test_layers_behind_the_quantiser_see_its_entries_only(after):
    model = VQRecurrentEncoder(width=6, depth=3, codes=5, after=after)
    mel = np.random.default_rng(0).normal(size=(2, 9, 5)).astype(np.float32)
    lengths, key = np.array([9, 4], np.int32), jax.random.key(4)
    params = jax.jit(model.init)(jax.random.key(0), mel, lengths)

    @jax.jit
    def run(params, key):
        return model.apply(params, mel, lengths, key, 0.5, method="quantise")

    encoded, output, codes = run(params, key)
    weights = jax.tree.map(np.asarray, params["params"])
    noise = np.asarray(jax.random.gumbel(key, (2, 9, 1, 5)))
    table = weights["quantiser"]
    for b, n in enumerate(lengths):
        x = mel[b, :n]
        for i in range(3):
            y = gru(x, weights[f"recurrences_{i}"], 6)
            x = y if i == 0 else x + y
            np.testing.assert_allclose(encoded.layers[i + 1][b, :n], x, rtol=1e-4, atol=1e-5)
            if i + 1 == after:
                scores = x @ table["scores_kernel"][0] + table["scores_bias"][0]
                chosen = (scores + noise[b, :n, 0]).argmax(-1)
                np.testing.assert_array_equal(codes.indices[b, :n, 0], chosen)
                x = table["code_embedding"][0][chosen]
        np.testing.assert_allclose(output[b, :n], x, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(output[b, n:], 0)
    np.testing.assert_array_equal(encoded.tokens, encoded.layers[-1])
    # without a key, as probes call it, the choice is the likeliest entry
    still = run(params, None)
    np.testing.assert_array_equal(still.codes.indices, still.codes.probabilities.argmax(-1))
    plain = jax.jit(model.apply)(params, mel, lengths)
    np.testing.assert_allclose(plain.tokens, still.encoded.tokens, rtol=1e-5, atol=1e-6)


def test_quantiser_stands_behind_a_layer_that_exists():
    with pytest.raises(ValueError, match="after=4: must be from 1 to depth 3"):
        VQRecurrentEncoder(after=4).init(jax.random.key(0), jnp.ones((1, 4, 2)), jnp.array([4]))


def test_unknown_cell():
    with pytest.raises(ValueError, match="valid: gru, lstm"):
        RecurrentEncoder(cell="rnn").init(jax.random.key(0), jnp.ones((1, 4, 2)), jnp.array([4]))
