"""A speech encoder that hears in chunks: its mask by definition, and the stream against the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax import config as configs
from taichu_jax.errors import UserError
from taichu_jax.models.experts import Experts
from taichu_jax.models.layers import sinusoid
from taichu_jax.models.speech import SpeechEncoder, chunk_mask
from taichu_jax.models.stack import Stack
from tests.conftest import ROOT

BANDS, STRIDE = 5, 2
RNG = np.random.default_rng(0)
MEL = RNG.normal(size=(2, 30, BANDS)).astype(np.float32)
LENGTHS = np.array([29, 17], np.int32)  # a ragged end, and a row that ends early


def encoder(**fields):
    return SpeechEncoder(width=8, depth=3, heads=2, bands=BANDS, frames=30, stride=STRIDE, **fields)


@functools.cache
def params(front_end="local", scan=False, shared=False):
    model = encoder(front_end=front_end, stack=Stack(scan=scan), shared_layers=shared)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), MEL, LENGTHS)
    return jax.tree.map(lambda p: 0.5 * rng.normal(size=p.shape).astype(np.float32), shapes)


def streamed(model, weights, mel, lengths):
    """Tokens [B, N, D] of whole chunks, one after the other."""
    size = model.chunk_size * model.stride
    count = -(-mel.shape[1] // size)
    mel = np.pad(mel, ((0, 0), (0, count * size - mel.shape[1]), (0, 0)))

    @jax.jit
    def step(part, real, heard):
        return model.apply(weights, part, real, heard, method="stream")

    heard, parts = model.silence(len(mel)), []
    for i in range(count):
        real = np.clip(lengths - i * size, 0, size).astype(np.int32)
        encoded, heard = step(mel[:, i * size : (i + 1) * size], real, heard)
        parts.append(encoded)
    tokens, mask = (np.concatenate([getattr(p, k) for p in parts], 1) for k in ("tokens", "mask"))
    return tokens, mask, parts


@pytest.mark.parametrize(
    ("chunk", "left", "fields", "kind"),
    [
        (1, 4, {}, {}),
        (2, 3, {}, {}),
        (3, 0, {}, {}),
        (4, 16, {"front_end": "linear"}, {"front_end": "linear"}),
        (5, 5, {"causal": True}, {}),
        (7, 2, {"stack": Stack(scan=True)}, {"scan": True}),
        (15, 1, {"shared_layers": True}, {"shared": True}),
        (20, 4, {}, {}),
        (3, 2, {"position_period": 5, "mel_mean": -2.0, "mel_deviation": 3.0}, {}),
    ],
)
def test_the_stream_equals_the_whole(chunk, left, fields, kind):
    model, weights = encoder(chunk_size=chunk, left_context=left, **fields), params(**kind)
    whole = jax.jit(model.apply)(weights, MEL, LENGTHS)
    tokens, mask, parts = streamed(model, weights, MEL, LENGTHS)
    real = np.asarray(whole.mask)
    np.testing.assert_array_equal(mask[:, : real.shape[1]], real)
    assert not mask[:, real.shape[1] :].any() and real.sum() == 15 + 9
    np.testing.assert_allclose(tokens[:, : real.shape[1]][real], whole.tokens[real], atol=1e-5)
    layer = np.concatenate([p.layers[2] for p in parts], 1)[:, : real.shape[1]]
    np.testing.assert_allclose(layer[real], whole.layers[2][real], atol=1e-4)


def test_a_long_stream_equals_the_whole_in_the_config_s_shape():
    """Chunks, context, period and stride of streaming_ctc_stamps; longer than what it trains on."""
    config = configs.load(str(ROOT / "configs/speech/streaming_ctc_stamps.py"))
    trained = configs.build(config.networks.speech)
    model = trained.clone(width=8, heads=2, depth=2, bands=BANDS, frames=1000)
    assert model.position_period >= model.chunk_size + model.left_context
    frames = 3 * 130 - 1  # 130 tokens: neither whole chunks nor whole tokens, twice around
    mel = np.random.default_rng(3).normal(-9, 4, size=(1, frames, BANDS)).astype(np.float32)
    lengths, rng = np.array([frames], np.int32), np.random.default_rng(4)
    shapes = jax.eval_shape(model.init, jax.random.key(0), mel, lengths)
    weights = jax.tree.map(lambda p: 0.5 * rng.normal(size=p.shape).astype(np.float32), shapes)
    whole = jax.jit(model.apply)(weights, mel, lengths)
    tokens, mask, _ = streamed(model, weights, mel, lengths)
    assert mask.sum() == 130
    np.testing.assert_allclose(tokens[:, :130], whole.tokens, atol=1e-5)


def test_frames_and_positions_are_those_that_are_asked_for():
    mel, plain = 3.0 * MEL - 2.0, encoder()
    apart = {"mel_mean": -2.0, "mel_deviation": 3.0}
    one = jax.jit(plain.apply)(params(), MEL, LENGTHS).tokens
    two = jax.jit(encoder(**apart).apply)(params(), mel, LENGTHS).tokens
    np.testing.assert_allclose(one, two, atol=1e-4)
    table = sinusoid(15, 8)
    again = encoder(position_period=6).apply(params(), sinusoid, 10, 7, method="_positions")
    np.testing.assert_allclose(again, table[np.array([1, 2, 3, 4, 5, 0, 1, 2, 3, 4])])
    on = encoder().apply(params(), sinusoid, 8, 7, method="_positions")
    np.testing.assert_allclose(on, table[7:], atol=1e-6)


def test_what_a_token_sees():
    """By changing one token's frames after the other, in one block, where nothing is passed on."""
    mask = np.asarray(chunk_mask(7, 3, 2))
    want = [[c >= (r // 3) * 3 - 2 and c < (r // 3 + 1) * 3 for c in range(7)] for r in range(7)]
    np.testing.assert_array_equal(mask, want)
    model = SpeechEncoder(
        width=8, depth=1, heads=2, bands=BANDS, frames=14, stride=STRIDE, chunk_size=3,
        left_context=2, front_end="linear",
    )  # fmt: skip
    mel, lengths = MEL[:1, :14], np.array([14], np.int32)
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), mel, lengths)
    weights = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), shapes)
    run = jax.jit(model.apply)
    base = run(weights, mel, lengths).tokens[0]
    for c in range(7):
        changed = mel.copy()
        changed[:, c * STRIDE] += 1
        moved = np.abs(run(weights, changed, lengths).tokens[0] - base).max(-1) > 0
        np.testing.assert_array_equal(moved, np.array(want)[:, c])


def test_the_state_does_not_grow():
    model = encoder(chunk_size=4, left_context=6)
    heard = model.silence(2)
    _, after = jax.eval_shape(
        lambda h: model.apply(params(), jnp.zeros((2, 8, BANDS)), LENGTHS, h, method="stream"),
        heard,
    )
    assert jax.tree.map(jnp.shape, heard) == jax.tree.map(jnp.shape, after)
    assert heard.cache[0].own.value.shape == (2, 2, 6, 4)


def test_an_encoder_without_chunks_is_what_it_was_and_cannot_stream():
    plain = jax.jit(encoder().apply)(params(), MEL, LENGTHS).tokens
    one = jax.jit(encoder(chunk_size=15).apply)(params(), MEL, LENGTHS).tokens
    assert np.abs(plain - one).max() > 1e-3  # its convolution looks ahead
    with pytest.raises(UserError, match=r"chunk_size=0: cannot stream; set it to 1 or more"):
        encoder().apply(params(), MEL, LENGTHS, encoder().silence(2), method="stream")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chunk_size": -1}, "chunk_size=-1: must be 0 or more"),
        ({"left_context": -3}, "left_context=-3"),
        ({"position_period": -1}, "position_period=-1"),
        ({"mel_deviation": 0.0}, "mel_deviation=0.0: must be above 0"),
        ({"chunk_size": 2, "relative_position": "gated"}, "relative_position='gated'"),
        ({"chunk_size": 2, "stack": Stack(experts=Experts(count=2))}, "stack.experts"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        encoder(**fields)
