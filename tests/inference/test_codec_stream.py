"""Codes and spectrograms in chunks against the whole recording at once."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.inference.codec_stream import CodeStream, FrameStream, StreamedCodec
from taichu_jax.inference.sliding import SlidingWindow
from taichu_jax.models.speech import SpeechEncoder
from tests.inference.speakers import BANDS, CODEC, MEL, STAGES, codec_run, pieces


@pytest.fixture(scope="module")
def streamed():
    return StreamedCodec(codec_run(), 0.12)  # three tokens, which do not divide the 16


@pytest.fixture(scope="module")
def whole():
    """(codes [16, stages], frames [64, bands], frames of the first stage)."""
    params = {"params": codec_run().params["speech"]}

    @jax.jit
    def run(mel, lengths):
        codes = CODEC.apply(params, mel, lengths, method="codes")
        decode = [CODEC.apply(params, codes[..., :n], method="decode")[0] for n in (2, 1)]
        return codes[0], *decode

    return [np.asarray(x) for x in run(MEL[None], np.array([len(MEL)], np.int32))]


@pytest.mark.parametrize("sizes", [[61], [1], [12], [7, 0, 3]])
def test_codes_are_those_of_the_whole(streamed, whole, sizes):
    stream, found = streamed.encoder(), 0
    parts = []
    for i, mel in enumerate(pieces(MEL, sizes)):
        parts.append(stream.feed(mel))
        found += len(mel)
        assert sum(map(len, parts)) == found // 4, i  # as soon as a token's frames are there
    parts.append(stream.finish())
    assert len(parts[-1]) == 1 and len(stream.finish()) == 0
    assert len(np.unique(whole[0])) > 4
    np.testing.assert_array_equal(np.concatenate(parts), whole[0])


@pytest.mark.parametrize("sizes", [[16], [1], [3], [5, 0, 2]])
def test_frames_are_those_of_the_whole(streamed, whole, sizes):
    stream = streamed.decoder()
    parts = [stream.feed(codes) for codes in pieces(whole[0], sizes)]
    assert [len(p) for p in parts] == [4 * len(c) for c in pieces(whole[0], sizes)]
    np.testing.assert_allclose(np.concatenate(parts), whole[1], rtol=1e-5, atol=1e-5)


def test_fewer_stages_are_frames_too(streamed, whole):
    stream = streamed.decoder()
    parts = [stream.feed(codes) for codes in pieces(whole[0][:, :1], [3])]
    np.testing.assert_allclose(np.concatenate(parts), whole[2], rtol=1e-5, atol=1e-5)
    assert np.abs(whole[2] - whole[1]).max() > 0.1


def test_one_token_less_is_not_enough(streamed, whole):
    back, drawn_back = CODEC.looks_back()
    decoder = FrameStream(streamed, SlidingWindow(drawn_back - 1, 0, 4))  # of the same size
    found = np.concatenate([decoder.feed(codes) for codes in pieces(whole[0], [3])])
    assert np.abs(found - whole[1]).max() > 1e-3
    encoder = CodeStream(streamed, SlidingWindow(back - 1, 0, 4))
    codes = np.concatenate([encoder.feed(mel) for mel in pieces(MEL, [12])])
    assert (codes != whole[0][: len(codes)]).any()


def test_a_stream_of_nothing_is_nothing(streamed):
    encoder, decoder = streamed.encoder(), streamed.decoder()
    assert encoder.feed(MEL[:0]).shape == encoder.finish().shape == (0, STAGES)
    assert decoder.feed(np.zeros((0, STAGES), np.int32)).shape == (0, BANDS)


def test_what_cannot_be_streamed_is_refused():
    run = codec_run()

    def other(**networks):
        return dataclasses.replace(run, experiment=types.SimpleNamespace(networks=networks))

    for chunk in (0.0, 0.03, 0.05, 61.0, float("nan")):
        with pytest.raises(UserError, match=r"must be a multiple of 0\.04 seconds"):
            StreamedCodec(run, chunk)
    with pytest.raises(UserError, match=r"config\.networks\.x\.causal=true"):
        StreamedCodec(other(x=CODEC.clone(causal=False)), 0.4)
    with pytest.raises(UserError, match="has no MelTokeniser"):
        StreamedCodec(other(x=SpeechEncoder()), 0.4)
    with pytest.raises(UserError, match="no MelTokeniser 'speach'; did you mean 'speech'"):
        StreamedCodec(run, 0.4, "speach")
