"""The encoder that is blind to its centre: what it may see, and loops over time and offsets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.layers import FrozenBatchNorm
from taichu_jax.models.local_context import LocalContextEncoder

LENGTHS = np.array([12, 7, 0], np.int32)
MEL = np.random.default_rng(0).normal(size=(3, 12, 4)).astype(np.float32)


def ready(model, mel, lengths):
    params = jax.jit(model.init)(jax.random.key(0), mel, lengths)
    return params, jax.jit(model.apply)


@pytest.mark.parametrize(
    ("blocks", "kernel", "mask"),
    [(4, 15, 5), (2, 9, 1), (1, 7, 3)],
    ids=["paper", "one", "shallow"],
)
def test_a_state_sees_its_surroundings_but_not_its_centre(blocks, kernel, mask):
    """The decisive test: R = kernel + 2 blocks frames around t, less the `mask` frames at the centre."""
    frames, t = 41, 20
    model = LocalContextEncoder(width=16, blocks=blocks, kernel=kernel, mask=mask)
    mel = np.random.default_rng(1).normal(size=(1, frames, 4)).astype(np.float32)
    lengths = np.array([frames], np.int32)
    params, run = ready(model, mel, lengths)
    # one example for every frame that is changed, all in one call
    changed = np.repeat(mel, frames, axis=0)
    changed[np.arange(frames), np.arange(frames)] += 3.0
    before = run(params, mel, lengths)
    after = run(params, changed, np.repeat(lengths, frames))
    moved = np.abs(after.tokens[:, t] - before.tokens[0, t]).max(-1)
    reach, blind = (kernel + 2 * blocks) // 2, mask // 2
    distance = np.abs(np.arange(frames) - t)
    sees = (distance > blind) & (distance <= reach)
    np.testing.assert_array_equal(moved > 1e-4, sees)
    np.testing.assert_array_equal(moved[~sees] < 1e-6, True)
    assert sees.sum() == kernel + 2 * blocks - mask
    # the features of block i, which are probed, see the centre and i frames to either side
    for i, layer in enumerate(before.layers):
        moved = np.abs(after.layers[i][:, t] - layer[0, t]).max(-1)
        np.testing.assert_array_equal(moved > 1e-5, distance <= i)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"norm": "batch", "activation": "tanh", "residual": False, "cross_layer": False},
        {"norm": "none"},
    ],
    ids=["paper", "other", "plain"],
)
def test_states_are_the_papers(change):
    model = LocalContextEncoder(width=6, blocks=2, kernel=9, mask=3, **change)
    params, run = ready(model, MEL, LENGTHS)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    activation = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[model.activation]
    encoded = run(params, MEL, LENGTHS)
    p = jax.tree.map(np.asarray, params["params"])

    def dense(x, q):
        return x @ q["kernel"] + q["bias"]

    def norm(x, block, name):
        if model.norm == "none":
            assert name not in block
            return x
        q = block[name]
        if model.norm == "batch":
            return (x - q["mean"]) / np.sqrt(q["variance"] + 1e-5) * q["scale"] + q["bias"]
        return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * q["scale"] + q["bias"]

    for b, n in enumerate(LENGTHS):
        x, total = MEL[b, :n], np.zeros((n, 6))
        for i in (1, 2):
            q, y = p[f"block_{i}"], []
            for t in range(n):
                around = [x[t + o] if 0 <= t + o < n else 0 * x[0] for o in (-1, 0, 1)]
                h = norm(dense(np.concatenate(around), q["convolution"]), q, "convolution_norm")
                h = norm(dense(activation(h), q["linear"]), q, "linear_norm")
                y.append(activation(h + x[t] if i > 1 and model.residual else h))
            x = np.array(y).reshape(n, 6)
            np.testing.assert_allclose(encoded.layers[i][b, :n], x, rtol=1e-3, atol=1e-4)
            if i == 1 and not model.cross_layer:
                assert "masked_1" not in p
                continue
            # kernel of 9 without its 3 + 2 i at the centre
            seen = [o for o in range(-4, 5) if abs(o) > (3 + 2 * i) // 2]
            kernel = p[f"masked_{i}"]["kernel"].reshape(len(seen), 6, 6)
            for t in range(n):
                h = p[f"masked_{i}"]["bias"] + sum(
                    x[t + o] @ w for o, w in zip(seen, kernel, strict=True) if 0 <= t + o < n
                )
                total[t] += np.tanh(h)
        np.testing.assert_allclose(encoded.tokens[b, :n], total, rtol=1e-3, atol=1e-4)


def test_padding_is_never_seen():
    model = LocalContextEncoder(width=6, blocks=2, kernel=9, mask=3)
    params, run = ready(model, MEL, LENGTHS)
    spoiled = np.where(np.arange(12)[:, None] < LENGTHS[:, None, None], MEL, np.nan)
    jax.tree.map(
        np.testing.assert_array_equal, run(params, MEL, LENGTHS), run(params, spoiled, LENGTHS)
    )


def test_fixed_statistics_get_no_gradient():
    """Scale and bias do; the statistics count, but their gradient is exactly zero."""
    x = np.random.default_rng(3).normal(size=(2, 5, 4)).astype(np.float32)
    norm = {"scale": [1.0, 2, 3, 4], "bias": [0.0, 1, 0, 1], "mean": [1.0, 0, 1, 0]}
    norm = {k: jnp.array(v) for k, v in norm.items()} | {"variance": jnp.array([1e-3, 1, 2, 3])}
    y, pull = jax.vjp(lambda p: FrozenBatchNorm().apply({"params": p}, x), norm)
    mean, variance = np.array(norm["mean"]), np.array(norm["variance"])
    want = (x - mean) / np.sqrt(variance + 1e-5) * np.array(norm["scale"]) + np.array(norm["bias"])
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    (gradient,) = pull(jnp.ones_like(y))
    np.testing.assert_array_equal(gradient["mean"], 0)
    np.testing.assert_array_equal(gradient["variance"], 0)
    np.testing.assert_allclose(gradient["bias"], 10)
    assert np.all(gradient["scale"] != 0)


def test_errors_name_the_field():
    def init(**fields):
        model = LocalContextEncoder(width=4, **fields)
        model.init(jax.random.key(0), jnp.ones((1, 4, 2)), jnp.array([4]))

    with pytest.raises(ValueError, match="norm='group'; valid: batch, layer, none"):
        init(norm="group")
    with pytest.raises(ValueError, match="activation='than'; did you mean 'tanh'"):
        init(activation="than")
    with pytest.raises(ValueError, match="must be odd"):
        init(mask=4)
    with pytest.raises(ValueError, match=r"kernel=13: must be above mask \+ 2 blocks = 13"):
        init(kernel=13)
