"""The transformer against loops in NumPy, one head, one query and one key at a time."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.attention import Attention
from taichu_jax.models.layers import Dropout, LayerNorm, gelu, masked_mean, sinusoid, sinusoid_2d
from taichu_jax.models.transformer import Transformer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 8)).astype(np.float32)
MEMORY = RNG.normal(size=(2, 3, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 0], [1, 0, 1, 1, 1]], bool)
MEMORY_MASK = np.array([[1, 1, 0], [0, 1, 1]], bool)


def parameters(model, *args):
    """Initial parameters plus noise, so that biases and scales matter."""
    params = jax.jit(model.init)(jax.random.key(0), *args)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32), params)


def dense(x, tree):
    return x @ tree["kernel"] + tree["bias"]


def norm(x, tree):
    mean = x.mean()
    variance = ((x - mean) ** 2).mean()
    return (x - mean) / np.sqrt(variance + 1e-6) * tree["scale"] + tree["bias"]


def attend(x, memory, see, tree, heads):
    """x [N, D], memory [M, D], see [N][M]."""
    width = x.shape[1] // heads
    out = np.zeros_like(x)
    for n in range(len(x)):
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            query = dense(x[n], tree["query"])[own]
            allowed = [m for m in range(len(memory)) if see[n][m]]
            scores = [
                math.exp(query @ dense(memory[m], tree["key"])[own] / math.sqrt(width))
                for m in allowed
            ]
            for m, score in zip(allowed, scores, strict=True):
                out[n, own] += score / sum(scores) * dense(memory[m], tree["value"])[own]
    return np.stack([dense(o, tree["out"]) for o in out])


def erf_gelu(x):
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])


def stack(x, see, tree, depth, heads, memory=None, memory_see=None):
    states = [x]
    for i in range(depth):
        block = tree[f"block_{i}"]
        y = np.stack([norm(v, block["attention_norm"]) for v in x])
        x = x + attend(y, y, see, block["attention"], heads)
        if memory is not None:
            y = np.stack([norm(v, block["cross_norm"]) for v in x])
            x = x + attend(y, memory, memory_see, block["cross"], heads)
        y = [norm(v, block["feed_forward_norm"]) for v in x]
        x = x + np.stack(
            [
                dense(
                    erf_gelu(dense(v, block["feed_forward"]["up"])), block["feed_forward"]["down"]
                )
                for v in y
            ]
        )
        states.append(x)
    return np.stack([norm(v, tree["norm"]) for v in x]), states


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_stack_is_the_loop(causal, cross):
    model = Transformer(depth=2, heads=2, expansion=3.0, causal=causal, cross=cross)
    extra = (MEMORY, MEMORY_MASK) if cross else ()
    params = parameters(model, X, MASK, *extra)
    got, layers = jax.jit(model.apply)(params, X, MASK, *extra)
    assert params["params"]["block_0"]["feed_forward"]["up"]["kernel"].shape == (8, 24)
    tree = jax.tree.map(lambda p: np.asarray(p, np.float64), params["params"])
    for b in range(2):
        see = [[MASK[b, m] and (m <= n or not causal) for m in range(5)] for n in range(5)]
        more = (MEMORY[b], [MEMORY_MASK[b]] * 5) if cross else ()
        want, states = stack(X[b].astype(np.float64), see, tree, 2, 2, *more)
        np.testing.assert_allclose(got[b], want, atol=2e-4)
        assert len(layers) == len(states)
        for layer, state in zip(layers, states, strict=True):
            np.testing.assert_allclose(layer[b], state, atol=2e-4)


def test_a_mask_of_rows_and_columns():
    """[B, N, N]: the mask that a [B, N] mask stands for gives the same."""
    model = Transformer(depth=1, heads=2)
    params = parameters(model, X, MASK)
    see = np.broadcast_to(MASK[:, None, :], (2, 5, 5))
    np.testing.assert_allclose(
        model.apply(params, X, see)[0], model.apply(params, X, MASK)[0], atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_query_that_may_look_nowhere_gets_the_output_bias(dtype):
    model = Attention(heads=2)
    see = np.ones((2, 1, 5, 5), bool)
    see[0, 0, 3] = False
    params = jax.tree.map(lambda p: p.astype(dtype), parameters(model, X, X, see))

    def run(x):
        return model.apply(params, x, x, see)

    out = run(jnp.asarray(X, dtype))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[0, 3], params["params"]["out"]["bias"])
    grad = jax.grad(lambda x: run(x).astype(jnp.float32).sum())(jnp.asarray(X, dtype))
    assert np.isfinite(np.asarray(grad, np.float32)).all()


def test_nothing_to_see_at_all_is_finite():
    model = Transformer(depth=2, heads=2, cross=True)
    params = parameters(model, X, MASK, MEMORY, MEMORY_MASK)

    def run(x):
        nowhere = (np.zeros_like(MASK), MEMORY, np.zeros_like(MEMORY_MASK))
        return model.apply(params, x, *nowhere)[0].sum()

    value, grad = jax.value_and_grad(run)(jnp.asarray(X))
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 8 is not a multiple of heads 3"):
        Attention(heads=3).init(jax.random.key(0), X, X, None)


def test_layer_norm_is_computed_in_float32():
    x = (1000 + RNG.normal(size=(4, 16))).astype(np.float32)
    params = LayerNorm().init(jax.random.key(0), x)
    got = np.asarray(LayerNorm().apply(params, x))
    want = (x - x.mean(-1, keepdims=True, dtype=np.float64)) / x.std(
        -1, keepdims=True, dtype=np.float64
    )
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert LayerNorm().apply(params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_gelu_is_exact():
    x = np.linspace(-4, 4, 33).astype(np.float32)
    np.testing.assert_allclose(gelu(x), erf_gelu(x), atol=1e-6)


def test_dropout_acts_only_with_an_rng_and_keeps_the_mean():
    x = jnp.ones((200, 200))
    layer = Dropout(0.25)
    np.testing.assert_array_equal(layer.apply({}, x), x)
    y = np.asarray(layer.apply({}, x, rngs={"dropout": jax.random.key(0)}))
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / y.size)


def test_positions():
    got = np.asarray(sinusoid(6, 8))
    for n in range(6):
        for i in range(4):
            angle = n / 10_000 ** (i / 3)
            np.testing.assert_allclose(got[n, i], math.sin(angle), atol=1e-5)
            np.testing.assert_allclose(got[n, 4 + i], math.cos(angle), atol=1e-5)
    grid = np.asarray(sinusoid_2d(2, 3, 8))
    for row in range(2):
        for column in range(3):
            want = [*sinusoid(2, 4)[row], *sinusoid(3, 4)[column]]
            np.testing.assert_allclose(grid[3 * row + column], want, atol=1e-6)


def test_masked_mean():
    got = masked_mean(jnp.asarray(X), jnp.asarray(MASK & [[True], [False]]))
    np.testing.assert_allclose(got[0], X[0, :4].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(got[1], 0)


def test_shared_layers_are_one_block_in_a_loop():
    model = Transformer(depth=3, heads=2, shared_layers=True)
    params = parameters(model, X, MASK)
    assert set(params["params"]) == {"block_0", "norm"}
    apart = jax.eval_shape(Transformer(depth=3, heads=2).init, jax.random.key(0), X, MASK)
    counts = [sum(p.size for p in jax.tree.leaves(tree)) for tree in (apart, params)]
    assert counts[0] - counts[1] == 2 * (4 * 8 * 9 + 8 * 33 + 32 * 9 + 4 * 8)
    got, layers = jax.jit(model.apply)(params, X, MASK)
    tree = jax.tree.map(lambda p: np.asarray(p, np.float64), params["params"])
    same = {"norm": tree["norm"]} | {f"block_{i}": tree["block_0"] for i in range(3)}
    for b in range(2):
        want, states = stack(X[b].astype(np.float64), [MASK[b]] * 5, same, 3, 2)
        np.testing.assert_allclose(got[b], want, atol=1e-3)
        for layer, state in zip(layers, states, strict=True):
            np.testing.assert_allclose(layer[b], state, atol=1e-3)


def test_shared_layers_draw_their_own_dropout():
    model = Transformer(depth=2, heads=2, dropout=0.5, shared_layers=True)
    params = jax.tree.map(jnp.zeros_like, parameters(model, X, MASK))
    down = params["params"]["block_0"]["feed_forward"]["down"]
    down["bias"] = jnp.ones_like(down["bias"])  # every layer adds ones, half of them dropped
    _, layers = model.apply(params, X, MASK, rngs={"dropout": jax.random.key(0)})
    first, second = np.round(np.diff(np.stack(layers), axis=0), 4)
    assert set(np.unique(first)) == set(np.unique(second)) == {0, 2}
    assert 0.2 < (first == second).mean() < 0.8
