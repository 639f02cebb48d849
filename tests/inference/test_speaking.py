"""Codes spoken chunk by chunk, and a recording through a codec, against the whole at once."""

import jax
import numpy as np
import pytest

from taichu_jax.inference.codec_stream import StreamedCodec
from taichu_jax.inference.sound_stream import GriffinLimStream, NeuralStream
from taichu_jax.inference.speaking import Passage, speak
from taichu_jax.inference.vocoder import NeuralVocoder
from tests.inference.speakers import CODEC, MEL, WAVE, codec_run, pieces, vocoder_run


@pytest.fixture(scope="module")
def parts():
    return StreamedCodec(codec_run(), 0.16), NeuralVocoder(vocoder_run())


@pytest.fixture(scope="module")
def whole(parts):
    """(codes, the sound of all their frames, the sound of the recording's 61 frames)."""
    params = {"params": codec_run().params["speech"]}

    @jax.jit
    def run(mel, lengths):
        codes = CODEC.apply(params, mel, lengths, method="codes")
        return codes[0], CODEC.apply(params, codes, method="decode")[0]

    codes, frames = map(np.asarray, run(MEL[None], np.array([len(MEL)], np.int32)))
    everything, real = parts[1]([frames, frames[: len(MEL)]], [None, len(WAVE)])
    return codes, everything, real


@pytest.mark.parametrize("sizes", [[16], [1], [3]])
def test_codes_become_the_sound_of_the_whole(parts, whole, sizes):
    read = []

    def codes():
        for chunk in pieces(whole[0], sizes):
            read.append(len(chunk))
            yield chunk

    streamed, vocoder = parts
    sounds = speak(codes(), streamed.decoder(), NeuralStream(vocoder, streamed.frames))
    found = [next(sounds)]
    # Sound begins as soon as the generator knows enough of what follows.
    needed = -(-(1 + vocoder.generator.receptive_field()[1]) // 4)
    assert sum(read) == -(-needed // sizes[0]) * sizes[0]
    found += list(sounds)
    assert all(map(len, found))
    np.testing.assert_allclose(np.concatenate(found), whole[1], atol=1e-5)


@pytest.mark.parametrize("size", [9_735, 2_560, 777])
def test_a_recording_passes_through_with_its_length(parts, whole, size):
    streamed, vocoder = parts
    passage = Passage(streamed, NeuralStream(vocoder, streamed.frames))
    found = [passage.feed(piece) for piece in pieces(WAVE, [size])]
    found.append(passage.finish())
    np.testing.assert_allclose(np.concatenate(found), whole[2], atol=1e-5)


def test_without_a_vocoder_and_with_fewer_codes(parts):
    def sound(stages):
        passage = Passage(parts[0], GriffinLimStream(iterations=2), stages)
        found = [passage.feed(piece) for piece in pieces(WAVE, [2_560])]
        return np.concatenate([*found, passage.finish()])

    one, two = sound(1), sound(2)
    assert one.shape == two.shape == WAVE.shape and np.abs(one - two).max() > 1e-3


def test_nothing_is_nothing(parts):
    streamed, vocoder = parts
    passage = Passage(streamed, NeuralStream(vocoder, streamed.frames))
    assert len(passage.feed(WAVE[:0])) == len(passage.finish()) == 0
    assert list(speak([], streamed.decoder(), GriffinLimStream())) == []
