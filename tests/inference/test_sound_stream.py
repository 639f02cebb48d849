"""Sound in chunks: equal to the whole with a generator, and without clicks by Griffin-Lim."""

import numpy as np
import pytest

from taichu_jax.data import audio
from taichu_jax.errors import UserError
from taichu_jax.inference.sliding import SlidingWindow
from taichu_jax.inference.sound_stream import GriffinLimStream, NeuralStream
from taichu_jax.inference.vocoder import NeuralVocoder, griffin_lim
from tests.inference.speakers import GENERATOR, MEL, WAVE, pieces, vocoder_run
from tests.inference.test_vocoder import voice


@pytest.fixture(scope="module")
def vocoder():
    return NeuralVocoder(vocoder_run())


def streamed(stream, mel, sizes, samples=None):
    """(sound, where its chunks meet)."""
    parts = [stream.feed(part) for part in pieces(mel, sizes)]
    parts.append(stream.finish(samples))
    ends = np.cumsum([len(p) for p in parts])
    return np.concatenate(parts), np.unique(ends[(ends > 0) & (ends < ends[-1])])


@pytest.mark.parametrize(
    ("sizes", "samples"), [([61], None), ([1], 9_735), ([16], 9_735), ([9, 0, 23], 9_600)]
)
def test_a_generator_in_chunks_is_the_whole(vocoder, sizes, samples):
    expected = vocoder([MEL], [samples])[0]
    found, joints = streamed(NeuralStream(vocoder, 16), MEL, sizes, samples)
    assert len(found) == (samples or 9_600) and len(joints) >= 1
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("side", [0, 1])
def test_one_frame_less_is_not_enough(vocoder, side):
    field, stream = list(GENERATOR.receptive_field()), NeuralStream(vocoder, 16)
    field[side] -= 1
    stream._window = SlidingWindow(*field, 17)  # of the same size
    found, _ = streamed(stream, MEL, [16])
    assert np.abs(found - vocoder([MEL])[0]).max() > 1e-4


def test_a_generator_refuses_other_bands_and_other_lengths(vocoder):
    stream = NeuralStream(vocoder, 16)
    with pytest.raises(UserError, match="frames of 5 bands, but the vocoder reads 8"):
        stream.feed(np.zeros((3, 5), np.float32))
    stream.feed(MEL)
    with pytest.raises(UserError, match="61 frames belong to 9600 to 9759 samples"):
        stream.finish(9_760)


def clicks(wave, joints):
    """How many times as large steps between samples are at joints than elsewhere, both squared."""
    jumps = np.square(np.diff(np.diff(wave)))
    near = np.unique(joints[:, None] + np.arange(-3, 2))
    near = near[(near >= 0) & (near < len(jumps))]
    return jumps[near].mean() / np.delete(jumps, near).mean()


def test_griffin_lim_in_chunks_comes_as_near_and_does_not_click():
    wave = np.concatenate([voice(i)[:5000] for i in range(4)])
    mel = audio.log_mel(wave)
    found, joints = streamed(GriffinLimStream(), mel, [10], len(wave))
    assert found.shape == wave.shape and found.dtype == np.float32 and len(joints) >= 11
    assert np.abs(found).max() <= 1
    whole = griffin_lim(mel, len(wave))

    def distance(x):
        return np.abs(audio.log_mel(x) - mel).mean()

    assert distance(found) < 1.15 * distance(whole)
    apart = np.concatenate([griffin_lim(mel[i : i + 11]) for i in range(0, 110, 10)])
    places = np.arange(1600, len(apart), 1600)
    assert clicks(found, joints) < 1.5 < 3 < clicks(apart, places)


def test_griffin_lim_s_sound_has_its_length_whatever_the_pieces():
    for count in (1, 2, 3, 9):
        mel = MEL[:count]
        for sizes in ([count], [1], [2]):
            for samples in (None, 160 * count - 160, 160 * count - 1):
                found, _ = streamed(GriffinLimStream(iterations=1), mel, sizes, samples)
                assert len(found) == (160 * (count - 1) if samples is None else samples)
                assert np.isfinite(found).all()


def test_what_is_out_depends_on_nothing_that_comes_later():
    """Nor on whether anything comes: what a chunk gives is final."""
    one, two = GriffinLimStream(ahead=2), GriffinLimStream(ahead=2)
    first = [stream.feed(MEL[:20]) for stream in (one, two)]
    np.testing.assert_array_equal(*first)
    assert len(first[0]) == 18 * 160 - 200
    assert len(one.feed(MEL[20:30])) == len(two.feed(MEL[30:40] + 1.0)) == 1600


def test_silence_stays_silent_and_nothing_is_nothing(vocoder):
    silent = audio.log_mel(np.zeros(3200, np.float32), 8)
    found, _ = streamed(GriffinLimStream(), silent, [5])
    assert len(found) == 3200 and np.abs(found).max() < 1e-6
    for stream in (GriffinLimStream(), NeuralStream(vocoder, 16)):
        assert len(stream.feed(MEL[:0])) == len(stream.finish()) == 0
    with pytest.raises(UserError, match="ahead=-1"):
        GriffinLimStream(ahead=-1)


def test_the_wave_of_these_tests_is_what_its_frames_say():
    assert audio.frame_count(len(WAVE)) == len(MEL) == 61
