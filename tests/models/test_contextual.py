"""The encoders of CPC and wav2vec: what a state may see, convolutions and norms against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.models.quantiser import KmeansQuantiser, ProductQuantiser

AUDIO = np.random.default_rng(1).normal(size=(3, 300)).astype(np.float32)
LENGTHS = np.array([300, 171, 0], np.int32)
CONVOLUTION = {"context": "convolution", "context_kernels": (2, 3)}
KINDS = {
    "gru": {"context": "gru", "depth": 2},
    "lstm": {"context": "lstm"},
    "convolution": CONVOLUTION,
    "skip": CONVOLUTION | {"skip": True, "compress": True},
    "group": CONVOLUTION | {"norm": "group"},
    "kmeans": CONVOLUTION | {"quantiser": KmeansQuantiser(groups=2, codes=5, dim=4)},
}


@functools.cache
def model(kind):
    fields = {"width": 8, "channels": 6, "kernels": (10, 4), "strides": (5, 3)} | KINDS[kind]
    module = WaveContextEncoder(**fields)
    params = jax.jit(module.init)(jax.random.key(0), AUDIO, LENGTHS)["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # no bias at zero, no scale at one
    params = structure.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )
    return module, params, jax.jit(lambda *args: module.apply({"params": params}, *args))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_never_seen(kind):
    module, _, run = model(kind)
    encoded = run(AUDIO, LENGTHS)
    assert encoded.tokens.shape == (3, module.token_count(300), 8)
    assert encoded.rate == 16_000 / 15
    spoiled = AUDIO.copy()
    for b, n in enumerate(LENGTHS):
        spoiled[b, n:] = np.nan
    again = run(spoiled, LENGTHS)
    np.testing.assert_array_equal(encoded.tokens, again.tokens)
    short = run(AUDIO[1:2, :171], LENGTHS[1:2])
    n = short.tokens.shape[1]
    assert encoded.mask[1].sum() == n == module.token_count(171)
    np.testing.assert_allclose(encoded.tokens[1, :n], short.tokens[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(encoded.tokens[1, n:], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_sees_a_later_sample_unless_normalised_over_time(kind):
    run = model(kind)[2]
    other = AUDIO.copy()
    other[0, 205:] += 1.0
    seen = [s * 15 + 25 <= 205 for s in range(19)]  # windows of 25 samples every 15
    a, b = run(AUDIO, LENGTHS), run(other, LENGTHS)
    for one, two in zip((*a.layers, a.tokens), (*b.layers, b.tokens), strict=True):
        change = np.abs(one - two)[0].max(-1)
        assert change[~np.array(seen)].max() > 1e-3
        if kind == "group":
            assert change[seen].max() > 1e-4
        else:
            assert change[seen].max() == 0


def test_token_count_of_the_published_encoders():
    """10 ms between latents, windows of 29 ms."""
    base = WaveContextEncoder()
    for samples, tokens in [(465, 1), (464, 0), (624, 1), (625, 2), (16_000, 98)]:
        assert base.token_count(samples) == tokens
    np.testing.assert_array_equal(base.token_count(jnp.array([16_000, 464, 0])), [98, 0, 0])


def normalised(x, norm, params):
    axis = -1 if norm == "layer" else None
    mean, variance = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    scale, bias = np.asarray(params["scale"]), np.asarray(params["bias"])
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias


@pytest.mark.parametrize("kind", ["skip", "group"])
def test_against_formulas(kind):
    """Two strided convolutions and two causal ones, on an utterance alone, in NumPy."""
    module, params, run = model(kind)
    encoded = run(AUDIO, LENGTHS)
    for b, n in enumerate(LENGTHS[:2]):
        x = AUDIO[b, :n, None].astype(np.float64)
        for i, (size, stride) in enumerate(((10, 5), (4, 3))):
            kernel = np.asarray(params[f"convolutions_{i}"]["kernel"])
            starts = range(0, len(x) - size + 1, stride)
            y = np.array([(x[s : s + size, :, None] * kernel).sum((0, 1)) for s in starts])
            x = np.maximum(normalised(y, module.norm, params[f"norms_{i}"]), 0)
        if module.compress:
            x = np.log(1 + np.abs(x))
        np.testing.assert_allclose(encoded.layers[0][b, : len(x)], x, rtol=1e-3, atol=1e-4)
        for i, size in enumerate((2, 3)):
            layer = params[f"contexts_{i}"]
            kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
            padded = np.concatenate([np.zeros((size - 1, x.shape[1])), x])
            y = [(padded[s : s + size, :, None] * kernel).sum((0, 1)) for s in range(len(x))]
            y = normalised(np.array(y) + bias, module.norm, params[f"context_norms_{i}"])
            y = np.maximum(y, 0)
            if module.skip:
                same = x if i else x @ np.asarray(params["entry"]["kernel"])
                y = (y + same) * np.sqrt(0.5)
            x = y
        np.testing.assert_allclose(encoded.tokens[b, : len(x)], x, rtol=1e-3, atol=1e-4)


def test_contexts_read_the_quantised_latents_only():
    module, params, run = model("kmeans")
    encoded = run(AUDIO, LENGTHS)

    def parts(audio, lengths):
        latents, mask = module.apply({"params": params}, audio, lengths, method="features")
        codes = module.apply({"params": params}, latents, method="quantise")
        context = module.apply({"params": params}, codes.vectors, mask, method="contextualise")
        return latents, codes, context

    latents, codes, context = jax.jit(parts)(AUDIO, LENGTHS)
    np.testing.assert_allclose(encoded.layers[0], latents, rtol=1e-5, atol=1e-6)
    vectors = np.where(encoded.mask[..., None], codes.vectors, 0)
    np.testing.assert_allclose(encoded.layers[1], vectors, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoded.tokens, context.tokens, rtol=1e-4, atol=1e-5)
    assert len(encoded.layers) == 4 and codes.penalty.shape == (3, 19)


def test_step_head():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    for bias in (False, True):
        head = StepHead(steps=3, features=5, bias=bias)
        params = head.init(jax.random.key(0), x)["params"]["linear"]
        assert set(params) == ({"kernel", "bias"} if bias else {"kernel"})
        expected = x @ np.asarray(params["kernel"])
        out = head.apply({"params": {"linear": params}}, x)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
        assert out.shape == (2, 3, 15)


def test_a_step_head_starts_as_it_is_told():
    x = jnp.ones((1, 40))
    kernels = {}
    for fan in ("in", "out"):
        head = StepHead(steps=8, features=32, fan=fan)
        kernels[fan] = np.asarray(head.init(jax.random.key(0), x)["params"]["linear"]["kernel"])
    np.testing.assert_allclose(kernels["in"].std(), 40**-0.5, rtol=0.02)
    largest = np.abs(kernels["out"]).max()
    np.testing.assert_allclose(largest, (8 * 32) ** -0.5, rtol=0.01)
    np.testing.assert_allclose(kernels["out"].std(), largest / 3**0.5, rtol=0.02)
    with pytest.raises(ValueError, match="valid: in, out"):
        StepHead(fan="both").init(jax.random.key(0), x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "batch"}, "valid: group, layer"),
        ({"activation": "swish"}, "valid: gelu, gelu_tanh, quick_gelu, relu, silu, tanh"),
        ({"context": "rnn"}, "valid: convolution, gru, lstm"),
        ({"kernels": (10, 4)}, "2 kernels, but 5 strides"),
        ({}, "shorter than one token"),
    ],
)
def test_errors_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        WaveContextEncoder(**fields).init(jax.random.key(0), AUDIO, LENGTHS)


def test_an_encoder_without_quantiser_says_so():
    module, params, _ = model("gru")
    with pytest.raises(ValueError, match="quantiser=None"):
        module.apply({"params": params}, jnp.zeros((1, 2, 6)), method="quantise")


def test_a_gumbel_quantiser_draws_only_with_a_key():
    quantiser = ProductQuantiser(groups=1, codes=4, dim=4)
    module = WaveContextEncoder(
        width=4, channels=4, kernels=(10,), strides=(10,), quantiser=quantiser
    )
    params = jax.jit(module.init)(jax.random.key(0), AUDIO, LENGTHS)
    latents = jnp.ones((1, 200, 4))

    def drawn(*args):
        return np.asarray(module.apply(params, latents, *args, method="quantise").indices)

    assert len(np.unique(drawn())) == 1
    assert len(np.unique(drawn(jax.random.key(1), 0.5))) > 1
