"""The encoder of PASE: its filters against SciPy, its layers against loops, and what it may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from taichu_jax.errors import UserError
from taichu_jax.models.pase import (
    GlobalNorm,
    PaseEncoder,
    PReLU,
    QuasiRecurrence,
    SincFilters,
    band_passes,
    mel_edges,
)
from taichu_jax.ops.distortions import Distortions

AUDIO = np.random.default_rng(1).normal(size=(4, 1700)).astype(np.float32)
LENGTHS = np.array([1700, 811, 159, 0], np.int32)
SIZES = {"width": 8, "channels": (6, 5, 4), "kernels": (33, 6, 5), "strides": (20, 4, 2)}


def encoder(**fields):
    return PaseEncoder(**{**SIZES, "recurrent": 7, **fields})


def ready(model, *args, **kwargs):
    params = jax.jit(lambda *a: model.init(jax.random.key(0), *a, **kwargs))(*args)
    return params, jax.jit(lambda p, *a: model.apply(p, *a, **kwargs))


def test_filters_are_scipys():
    position, scale = np.array([0.0, -0.4, 2.0]), np.array([0.3, 0.1, 9.0])
    ours = np.asarray(band_passes(position, scale, 251, 16_000))
    # |scale| = 9 passes Nyquist's frequency: the third is a high-pass filter
    for i, (low, high) in enumerate([(50, 400), (450, 600), (2050, None)]):
        edges = low if high is None else [low, high]
        kind = {"pass_zero": "highpass" if high is None else "bandpass", "scale": False}
        theirs = scipy.signal.firwin(251, edges, window="hamming", fs=16_000, **kind)
        theirs *= 16_000 / 2 / ((high or 8000) - low)
        np.testing.assert_allclose(ours[:, i], theirs, atol=2e-4)
    np.testing.assert_allclose(ours[125], 1, atol=1e-6)


def test_filters_start_equally_spaced_in_mel():
    edges = 1000 * mel_edges(64, 16_000)
    np.testing.assert_allclose(edges[[0, -1]], [30, 7900])
    np.testing.assert_allclose(np.diff(2595 * np.log10(1 + edges / 700), 2), 0, atol=1e-8)


@pytest.mark.parametrize(("size", "stride"), [(33, 1), (33, 5), (33, 20), (5, 5), (5, 4)])
def test_filtering_is_a_loop_over_samples(size, stride):
    samples = 40 * stride
    model = SincFilters(3, size, stride)
    params, run = ready(model, AUDIO[:2, :samples])
    ours = np.asarray(run(params, AUDIO[:2, :samples]))
    p = params["params"]
    taps = np.asarray(band_passes(p["band_position"], p["band_scale"], size, 16_000))
    padded = np.pad(AUDIO[:2, :samples], ((0, 0), (size // 2, size)))
    assert ours.shape == (2, 40, 3)
    for j in range(40):
        expected = padded[:, j * stride : j * stride + size] @ taps
        np.testing.assert_allclose(ours[:, j], expected, atol=1e-4)


def test_quasi_recurrence_is_a_loop_over_time():
    x = np.random.default_rng(2).normal(size=(2, 9, 3)).astype(np.float32)
    params, run = ready(QuasiRecurrence(4), x)
    ours = np.asarray(run(params, x))
    w, bias = (np.asarray(params["params"]["input"][k], np.float64) for k in ("kernel", "bias"))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for b in range(2):
        c = np.zeros(4)
        for t in range(9):
            before = x[b, t - 1] if t else np.zeros(3)
            z, f, o = np.split(np.concatenate([before, x[b, t]]) @ w + bias, 3)
            c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
            np.testing.assert_allclose(ours[b, t], sigmoid(o) * c, atol=1e-5)


def test_global_norm_and_prelu():
    x = np.random.default_rng(3).normal(2, 3, (2, 6, 4)).astype(np.float32)
    mask = np.arange(6) < np.array([[6], [3]])
    params, run = ready(GlobalNorm(), x, mask)
    ours = np.asarray(run(params, np.where(mask[..., None], x, np.nan), mask))
    for b, n in enumerate([6, 3]):
        own = x[b, :n].astype(np.float64)
        np.testing.assert_allclose(ours[b, :n], (own - own.mean()) / own.std(), atol=1e-4)
    params = {"params": {"negative_scale": jnp.array([0.0, 0.5, 1.0, -1.0])}}
    ours = PReLU().apply(params, jnp.array([[-2.0] * 4, [3.0] * 4]))
    np.testing.assert_array_equal(ours, [[0, -1, -2, 2], [3] * 4])


def test_tokens_rate_and_layers():
    params, run = ready(encoder(), AUDIO, LENGTHS)
    encoded = run(params, AUDIO, LENGTHS)
    assert encoded.tokens.shape == (4, 10, 8) and encoded.rate == 100
    np.testing.assert_array_equal(encoded.mask.sum(-1), [10, 5, 0, 0])
    assert [x.shape for x in encoded.layers] == [(4, 10, c) for c in (6, 5, 4, 7)]
    assert encoder().token_count(1700) == 10
    plain, _ = ready(encoder(recurrent=0, short_cuts=False), AUDIO, LENGTHS)
    missing = set(params["params"]) - set(plain["params"])
    assert missing == {"recurrence", "cuts_0", "cuts_1"}
    assert PaseEncoder().token_count(16_000) == 100


def test_padding_is_never_seen():
    params, run = ready(encoder(), AUDIO, LENGTHS)
    encoded = run(params, AUDIO, LENGTHS)
    spoiled = np.where(np.arange(1700) < LENGTHS[:, None], AUDIO, np.nan)
    again = run(params, spoiled, LENGTHS)
    for ours, theirs in zip(
        (encoded.tokens, *encoded.layers), (again.tokens, *again.layers), strict=True
    ):
        assert np.isfinite(ours).all() and (np.asarray(ours)[~np.asarray(encoded.mask)] == 0).all()
        np.testing.assert_array_equal(ours, theirs)
    alone = run(params, AUDIO[1:2, :811], LENGTHS[1:2])  # the row without its padding
    np.testing.assert_allclose(alone.tokens[0], encoded.tokens[1, :5], atol=1e-5)


def test_short_cuts_add_averaged_projections():
    params, run = ready(encoder(), AUDIO, LENGTHS)
    encoded = run(params, AUDIO, LENGTHS)
    p = params["params"]
    y = np.asarray(encoded.layers[3]) @ p["projection"]["kernel"] + p["projection"]["bias"]
    for i in range(2):
        y = y + np.asarray(encoded.layers[i]) @ p[f"cuts_{i}"]["kernel"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(encoded.tokens[0], y[0], atol=1e-4)


def test_distort_is_a_draw_of_the_step_and_has_no_parameters():
    model = encoder(distortions=Distortions(noise=1.0))
    params, run = ready(model, AUDIO, LENGTHS, 3, method="distort")
    assert not params.get("params")
    once = np.asarray(run(params, AUDIO, LENGTHS, 3))
    assert (once == np.asarray(run(params, AUDIO, LENGTHS, 3))).all()
    assert (once != np.asarray(run(params, AUDIO, LENGTHS, 4))).any()


def test_errors_say_what_is_wrong():
    def starting(model, *args, **kwargs):
        return jax.eval_shape(lambda: model.init(jax.random.key(0), *args, **kwargs))

    with pytest.raises(UserError, match="needs an encoder with `distortions`"):
        starting(encoder(), AUDIO, LENGTHS, 0, method="distort")
    with pytest.raises(UserError, match="shorter than a token of 160"):
        starting(encoder(), AUDIO[:, :100], LENGTHS)
    with pytest.raises(UserError, match="must be odd"):
        starting(encoder(kernels=(32, 6, 5)), AUDIO, LENGTHS)
    with pytest.raises(UserError, match="equally many"):
        starting(encoder(strides=(20, 8)), AUDIO, LENGTHS)
