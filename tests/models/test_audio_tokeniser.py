"""Codes of spectrograms: what they know, what they do not, and what reads them."""

import functools

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.residual_quantiser import ResidualQuantiser
from tests.inference.speakers import lively

QUANTISER = ResidualQuantiser(stages=2, codes=9, dim=4)
CAUSAL = MelTokeniser(
    width=8, depth=2, stride=4, bands=5, mel_mean=-3.0, mel_deviation=2.0, quantiser=QUANTISER
)
LENGTHS = np.array([19, 8], np.int32)
MEL = np.random.default_rng(0).normal(size=(2, 19, 5)).astype(np.float32)


@functools.cache
def params(causal=True):
    def both(module):
        latents, _ = module.encode(MEL, LENGTHS)
        return module.synthesise(module.quantise(latents).vectors, LENGTHS)

    module = CAUSAL.clone(causal=causal)
    return jax.jit(lambda: module.init(jax.random.key(0), method=both))()


@functools.cache
def compiled(method, causal=True):
    module, trained = CAUSAL.clone(causal=causal), params(causal)
    return jax.jit(lambda *args: module.apply(trained, *args, method=method))


def test_codes_and_frames_need_nothing_but_the_parameters():
    codes = np.asarray(compiled("codes")(MEL, LENGTHS))
    assert codes.shape == (2, 5, 2) and codes.dtype == np.int32
    latents, mask = compiled("encode")(MEL, LENGTHS)
    assert np.asarray(mask).sum(1).tolist() == [5, 2]
    real = np.asarray(latents)[np.asarray(mask)]
    np.testing.assert_allclose(real.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(real.std(-1), 1, atol=1e-3)
    quantised = compiled("quantise")(latents)
    np.testing.assert_array_equal(quantised.indices, codes)
    expected = np.asarray(compiled("synthesise")(quantised.vectors, LENGTHS))
    decoded = np.asarray(compiled("decode")(codes, LENGTHS))
    assert decoded.shape == (2, 20, 5)
    for b, length in enumerate(LENGTHS):
        np.testing.assert_allclose(decoded[b, :length], expected[b, :length], rtol=1e-4, atol=1e-5)
    whole = compiled("decode")(codes[:1])
    np.testing.assert_allclose(whole[0, :16], decoded[0, :16], rtol=1e-4, atol=1e-5)  # causal
    assert compiled("decode")(codes[..., :1], LENGTHS).shape == (2, 20, 5)


def test_frames_behind_the_end_do_not_matter_nor_does_the_batch_s_length():
    spoiled = MEL.copy()
    spoiled[1, 8:] = np.nan
    codes = np.asarray(compiled("codes")(MEL, LENGTHS))
    np.testing.assert_array_equal(compiled("codes")(spoiled, LENGTHS)[1, :2], codes[1, :2])
    for causal in (True, False):
        alone, _ = compiled("encode", causal)(MEL[1:, :8], LENGTHS[1:])
        beside, _ = compiled("encode", causal)(spoiled, LENGTHS)
        np.testing.assert_allclose(alone[0], beside[1, :2], rtol=1e-4, atol=1e-5)
        vectors = np.asarray(beside)
        drawn = compiled("synthesise", causal)(vectors, LENGTHS)[1, :8]
        shorter = compiled("synthesise", causal)(vectors[1:, :2], LENGTHS[1:])[0, :8]
        np.testing.assert_allclose(drawn, shorter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_only_causal_codes_know_nothing_of_later_frames(causal):
    changed = MEL.copy()
    changed[0, 12:] += 1.0  # the fourth token of four frames
    before, _ = compiled("encode", causal)(MEL, LENGTHS)
    after, _ = compiled("encode", causal)(changed, LENGTHS)
    moved = np.abs(np.asarray(before) - np.asarray(after))[0].max(-1) > 1e-5
    assert moved[3] and moved[:3].any() != causal
    drawn = np.asarray(compiled("synthesise", causal)(before, LENGTHS))
    redrawn = np.asarray(compiled("synthesise", causal)(before.at[0, 3].add(1.0), LENGTHS))
    frames = np.abs(drawn - redrawn)[0].max(-1) > 1e-5
    assert frames[12:16].any() and frames[:12].any() != causal


def test_it_is_an_encoder():
    encoded = compiled("__call__")(MEL, LENGTHS)
    assert encoded.rate == 25.0 and len(encoded.layers) == 2
    assert encoded.tokens.shape == encoded.layers[1].shape == (2, 5, 4)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="bands=5: the frames have 4 bands"):
        CAUSAL.apply(params(), MEL[..., :4], LENGTHS, method="encode")
    for wrong in (CAUSAL.clone(stride=1), CAUSAL.clone(stride=3, causal=False)):
        with pytest.raises(UserError, match="stride="):
            jax.eval_shape(wrong.init, jax.random.key(0), MEL, LENGTHS)


@pytest.mark.parametrize(("stride", "depth"), [(4, 1), (3, 2)])
def test_how_far_tokens_look_back_is_exact(stride, depth):
    """One frame, or one latent, changed at a time: which tokens change with it."""
    codec, tokens = CAUSAL.clone(stride=stride, depth=depth), 22
    frames = tokens * stride
    back, drawn_back = codec.looks_back()
    assert drawn_back < tokens - 2

    def both(module, mel, lengths, vectors):
        return module.encode(mel, lengths)[0], module.synthesise(vectors, lengths)

    rng = np.random.default_rng(0)
    mel = np.repeat(rng.normal(size=(1, frames, 5)), tokens + 1, 0).astype(np.float32)
    vectors = np.repeat(rng.normal(size=(1, tokens, 4)), tokens + 1, 0).astype(np.float32)
    mel[np.arange(1, tokens + 1), np.arange(tokens) * stride + stride - 1] += 3.0
    vectors[np.arange(1, tokens + 1), np.arange(tokens)] += 3.0 * rng.normal(size=4)
    lengths = np.full(tokens + 1, frames, np.int32)

    start = functools.partial(codec.init, method=both)
    weights = lively(jax.eval_shape(start, jax.random.key(0), mel, lengths, vectors))
    run = jax.jit(functools.partial(codec.apply, method=both))
    one, token = np.arange(tokens)[:, None], np.arange(tokens)
    for result, reach in zip(run(weights, mel, lengths, vectors), (back, drawn_back), strict=True):
        result = np.asarray(result).reshape(tokens + 1, tokens, -1)
        moved = (result[1:] != result[0]).any(-1)
        np.testing.assert_array_equal(moved, (token >= one) & (token <= one + reach))


def test_what_is_not_causal_does_not_look_back_only():
    with pytest.raises(UserError, match="causal=False: codes and frames know what comes later"):
        CAUSAL.clone(causal=False).looks_back()
