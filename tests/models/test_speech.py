"""Speech encoders: what they may see, how many tokens they give, convolutions against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.style import Style
from taichu_jax.models.wave import TimeConvolution, WaveEncoder

MEL = np.random.default_rng(0).normal(size=(3, 18, 5)).astype(np.float32)
MEL_LENGTHS = np.array([18, 9, 0], np.int32)
AUDIO = np.random.default_rng(1).normal(size=(3, 300)).astype(np.float32)
AUDIO_LENGTHS = np.array([300, 171, 0], np.int32)
SIZES = {"width": 8, "depth": 1, "heads": 2}


def speech(**fields):
    return SpeechEncoder(**SIZES, bands=5, frames=20, **fields)


def wave(**fields):
    fields = {"kernels": (10, 4), "strides": (5, 3), "positions": 4, "groups": 2, **fields}
    return WaveEncoder(**SIZES, channels=6, **fields)


def ready(model, x, lengths):
    params = jax.jit(model.init)(jax.random.key(0), x, lengths)
    return lambda *args: jax.jit(model.apply)(params, *args)


@pytest.mark.parametrize("stride", [1, 4])
def test_speech_tokens_and_rate(stride):
    run = ready(speech(stride=stride), MEL, MEL_LENGTHS)
    encoded = run(MEL, MEL_LENGTHS)
    tokens = -(-18 // stride)
    assert encoded.tokens.shape == (3, tokens, 8) and encoded.rate == 100 / stride
    assert speech(stride=stride).token_count(18) == tokens
    # a token is real when it holds at least one real frame
    expected = [[t * stride < n for t in range(tokens)] for n in MEL_LENGTHS]
    np.testing.assert_array_equal(encoded.mask, expected)


@pytest.mark.parametrize(
    ("model", "x", "lengths"),
    [
        (speech(), MEL, MEL_LENGTHS),
        (wave(), AUDIO, AUDIO_LENGTHS),
        (wave(norm="layer"), AUDIO, AUDIO_LENGTHS),
        (speech(front_end="linear"), MEL, MEL_LENGTHS),
        (wave(norm="layer", position_layers=2), AUDIO, AUDIO_LENGTHS),
        (speech(front_end="convolution", stride=2, positions="learned"), MEL, MEL_LENGTHS),
    ],
    ids=[
        "speech",
        "wave-group",
        "wave-layer",
        "speech-linear",
        "wave-two-positions",
        "speech-convolution",
    ],
)
def test_padding_is_never_seen(model, x, lengths):
    run = ready(model, x, lengths)
    encoded = run(x, lengths)
    spoiled = x.copy()
    for b, n in enumerate(lengths):
        spoiled[b, n:] = np.nan
    again = run(spoiled, lengths)
    np.testing.assert_array_equal(np.isfinite(again.tokens), True)
    np.testing.assert_array_equal(encoded.tokens, again.tokens)
    short = run(x[1:2, : lengths[1]], lengths[1:2])
    n = short.tokens.shape[1]
    assert encoded.mask[1].sum() == n
    np.testing.assert_allclose(encoded.tokens[1, :n], short.tokens[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"causal": True}, {"front_end": "linear"}])
def test_hidden_speech_leaves_no_trace(fields):
    """The frames of a hidden token change no state at all, not even its neighbours'."""
    run = ready(speech(**fields), MEL, MEL_LENGTHS)
    hidden = np.zeros((3, 5), bool)
    hidden[:, 1] = True
    other = MEL.copy()
    other[:, 4:8] += 1.0
    a, b = run(MEL, MEL_LENGTHS, hidden), run(other, MEL_LENGTHS, hidden)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    assert np.abs(run(MEL, MEL_LENGTHS).tokens - run(other, MEL_LENGTHS).tokens).max() > 1e-3


def test_linear_front_end_against_the_formula():
    """norm(x W + b + positions), the positions written as in arXiv 1706.03762."""
    model = speech(front_end="linear")
    params = jax.jit(model.init)(jax.random.key(0), MEL, MEL_LENGTHS)
    assert "front_out" not in params["params"] and "local" not in params["params"]
    front = params["params"]["front"]
    for b, n in ((0, 5), (1, 3)):  # tokens of four frames
        frames = np.zeros((20, 5))
        frames[: MEL_LENGTHS[b]] = MEL[b, : MEL_LENGTHS[b]]
        x = frames.reshape(5, 20)[:n] @ np.asarray(front["kernel"]) + np.asarray(front["bias"])
        for t in range(n):
            for i in range(4):
                x[t, 2 * i] += np.sin(t / 10_000 ** (2 * i / 8))
                x[t, 2 * i + 1] += np.cos(t / 10_000 ** (2 * i / 8))
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        first = jax.jit(model.apply)(params, MEL, MEL_LENGTHS).layers[0]
        np.testing.assert_allclose(first[b, :n], x, rtol=1e-4, atol=1e-5)


def test_causal_speech_does_not_see_the_future():
    run = ready(speech(stride=2, causal=True), MEL, MEL_LENGTHS)
    other = MEL.copy()
    other[:, 10:] += 1.0
    a, b = run(MEL, MEL_LENGTHS).tokens, run(other, MEL_LENGTHS).tokens
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
    assert np.abs(a[0, 5] - b[0, 5]).max() > 1e-3


def test_hidden_latents_leave_no_trace_in_the_wave_encoder():
    model = wave()
    params = jax.jit(model.init)(jax.random.key(0), AUDIO, AUDIO_LENGTHS)
    latents, mask = model.apply(params, AUDIO, AUDIO_LENGTHS, method="features")
    hidden = jnp.zeros(mask.shape, bool).at[:, 3].set(True)

    def run(latents):
        return model.apply(params, latents, mask, hidden, method="contextualise").tokens

    np.testing.assert_array_equal(run(latents), run(latents.at[:, 3].add(1.0)))


def test_wave_token_count():
    base = WaveEncoder()
    for samples, tokens in [(16_000, 49), (400, 1), (399, 0), (719, 1), (720, 2)]:
        assert base.token_count(samples) == tokens
    np.testing.assert_array_equal(base.token_count(jnp.array([16_000, 399, 0])), [49, 0, 0])
    assert wave().token_count(300) == 19


def test_wave_encoder_has_the_size_of_the_published_base_model():
    """94,371,712 parameters, less the 128 scales of the weight normalisation that is left out."""
    shapes = jax.eval_shape(
        WaveEncoder().init, jax.random.key(0), jnp.zeros((1, 800)), jnp.array([800])
    )
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 94_371_712 - 128


@pytest.mark.parametrize(
    ("size", "stride", "groups", "padding"), [(5, 3, 1, (0, 0)), (4, 1, 2, (2, 1))]
)
def test_convolution_against_a_loop(size, stride, groups, padding):
    model = TimeConvolution(
        6, size, stride, groups, padding, use_bias=True, kernel_init=nn.initializers.normal(1.0)
    )
    x = np.random.default_rng(0).normal(size=(2, 11, 4)).astype(np.float32)
    params = model.init(jax.random.key(0), x)
    kernel = np.asarray(params["params"]["kernel"])  # [size, 4 / groups, 6]
    padded = np.pad(x, ((0, 0), padding, (0, 0)))
    steps = (padded.shape[1] - size) // stride + 1
    expected = np.zeros((2, steps, 6))
    for t in range(steps):
        for out in range(6):
            group = out // (6 // groups)
            first = group * (4 // groups)
            window = padded[:, t * stride : t * stride + size, first : first + 4 // groups]
            expected[:, t, out] = (window * kernel[:, :, out]).sum((1, 2))
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def test_front_end_against_formulas():
    """Two convolutions, the first normalised over the real steps of time, in NumPy."""
    model = wave(gradient_scale=1.0)
    params = jax.jit(model.init)(jax.random.key(0), AUDIO, AUDIO_LENGTHS)
    latents, mask = model.apply(params, AUDIO, AUDIO_LENGTHS, method="features")
    first, second = (
        np.asarray(params["params"][f"convolutions_{i}"]["kernel"], np.float64) for i in range(2)
    )

    def gelu(x):
        return np.asarray(jax.nn.gelu(jnp.asarray(x, jnp.float32), approximate=False))

    for b, n in enumerate(AUDIO_LENGTHS[:2]):
        x = AUDIO[b, :n, None]
        y = np.array([(x[s : s + 10, :, None] * first).sum((0, 1)) for s in range(0, n - 9, 5)])
        y = gelu((y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5))
        z = [(y[s : s + 4, :, None] * second).sum((0, 1)) for s in range(0, len(y) - 3, 3)]
        assert mask[b].sum() == len(z)
        np.testing.assert_allclose(latents[b, : len(z)], gelu(np.array(z)), rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(latents[b, len(z) :], 0)


def test_gradient_scale_touches_the_front_end_only():
    def gradients(scale):
        model = wave(gradient_scale=scale)
        params = model.init(jax.random.key(0), AUDIO, AUDIO_LENGTHS)
        return jax.jit(
            jax.grad(lambda p: (model.apply(p, AUDIO, AUDIO_LENGTHS).tokens[..., 0] ** 2).sum())
        )(params)["params"]

    whole, tenth = gradients(1.0), gradients(0.1)
    for name in whole:
        factor = 0.1 if name.startswith(("convolutions", "norms")) else 1.0
        for a, b in zip(jax.tree.leaves(whole[name]), jax.tree.leaves(tenth[name]), strict=True):
            np.testing.assert_allclose(b, factor * a, rtol=1e-3, atol=1e-6)


def test_errors_name_the_field():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="frames=20"):
        speech().init(key, jnp.zeros((1, 21, 5)), jnp.array([21]))
    with pytest.raises(ValueError, match="bands=5"):
        speech().init(key, jnp.zeros((1, 8, 6)), jnp.array([8]))
    with pytest.raises(ValueError, match="valid: group, layer"):
        wave(norm="batch").init(key, AUDIO, AUDIO_LENGTHS)
    with pytest.raises(ValueError, match="front_end='none'; valid: convolution, linear, local"):
        speech(front_end="none").init(key, MEL, MEL_LENGTHS)
    with pytest.raises(ValueError, match="position_layers=0"):
        wave(position_layers=0).init(key, AUDIO, AUDIO_LENGTHS)
    with pytest.raises(ValueError, match="shorter than one token"):
        wave().init(key, AUDIO[:, :12], AUDIO_LENGTHS)


def test_shared_layers_save_all_blocks_but_one():
    def names(**fields):
        model = SpeechEncoder(width=8, depth=3, heads=2, bands=5, frames=20, **fields)
        shapes = jax.eval_shape(model.init, jax.random.key(0), MEL, MEL_LENGTHS)
        return set(shapes["params"]["transformer"])

    assert names() == {"block_0", "block_1", "block_2", "norm"}
    assert names(shared_layers=True) == {"block_0", "norm"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"positions": "sinusoid"}, "positions='sinusoid'; valid: fixed, learned"),
        ({"positions": "learned"}, "positions='learned': with front_end='local' must be 'fixed'"),
        ({"front_end": "convolution", "causal": True}, "front_end='convolution': hears a frame"),
        ({"style": Style(first_norm=True)}, "style.first_norm=True: must be False"),
    ],
)
def test_speech_settings_that_do_not_fit(fields, told):
    with pytest.raises(UserError, match=told):
        speech(**fields)
