"""What PASE's workers describe, against librosa and SciPy, and against closed forms for sines."""

import functools

import jax
import librosa
import numpy as np
import pytest
import scipy.signal

from taichu_jax.errors import UserError
from taichu_jax.ops import speech_features
from taichu_jax.ops.prosody import interpolated, pitch, prosody
from taichu_jax.ops.speech_frames import RATE, frame_count, windows

SAMPLES = 4800
LENGTHS = np.array([4800, 3275, 0], np.int32)


@functools.cache
def audio() -> np.ndarray:
    """A chirp in noise, whose level changes; not a number behind the lengths."""
    time = np.arange(SAMPLES) / RATE
    rng = np.random.default_rng(0)
    x = np.sin(2 * np.pi * (200 + 4000 * time) * time) * (1.2 + np.sin(20 * time))
    x = x + 0.3 * rng.normal(size=(3, SAMPLES))
    x[np.arange(SAMPLES) >= LENGTHS[:, None]] = np.nan
    return x.astype(np.float32)


def rows(function):
    """(the function's real frames, the real samples) of both rows that have some."""
    result = np.asarray(jax.jit(function)(audio(), LENGTHS))
    assert result.shape[:2] == (3, 30) and np.isfinite(result).all()
    return [(result[b, : n // 160], audio()[b, :n]) for b, n in enumerate(LENGTHS[:2])]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("size", [160, 400, 37])
def test_windows_are_where_they_should_be(size, centred):
    result = np.asarray(windows(audio(), LENGTHS, size, centred=centred))
    for b, n in enumerate(LENGTHS):
        for t in range(30):
            first = t * 160 - (size // 2 if centred else 0)
            for i in range(size):
                inside = 0 <= first + i < n
                assert result[b, t, i] == (audio()[b, first + i] if inside else 0)
    assert frame_count(SAMPLES + 159) == 30


def test_log_power_is_librosas():
    for ours, wave in rows(lambda x, n: speech_features.log_power(x, n, transform=1024)):
        spectrum = librosa.stft(
            wave, n_fft=1024, hop_length=160, win_length=400, pad_mode="constant"
        )
        power = np.maximum(np.abs(spectrum.T[: len(ours)]) ** 2, 1e-6)
        np.testing.assert_allclose(ours, 10 * np.log10(power), atol=0.01)


def mel_power(wave, frames, bands):
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=RATE,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=bands,
        pad_mode="constant",
    )
    return np.maximum(mel[:, :frames], 1e-6)


def test_filter_bank_is_librosas():
    for ours, wave in rows(speech_features.filter_bank):
        np.testing.assert_allclose(ours, np.log(mel_power(wave, len(ours), 40)).T, atol=1e-3)


@pytest.mark.parametrize(("bands", "transform"), [(40, 512), (80, 1024)])
def test_mel_filters_are_librosas(bands, transform):
    ours = speech_features.mel_filters(bands, transform)
    theirs = librosa.filters.mel(sr=RATE, n_fft=transform, n_mels=bands)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_mfcc_are_librosas():
    for ours, wave in rows(lambda x, n: speech_features.mfcc(x, n, order=13)):
        decibels = 10 * np.log10(mel_power(wave, len(ours), 40))
        np.testing.assert_allclose(
            ours, librosa.feature.mfcc(S=decibels, n_mfcc=13).T, rtol=1e-4, atol=1e-2
        )


def test_gammatone_of_a_sine_is_its_root_mean_square():
    centres = speech_features.gammatone_centres(8)
    assert centres[0] == 500 and (np.diff(centres) > 0).all() and centres[-1] < 8000
    time = np.arange(SAMPLES) / RATE
    sines = np.sin(2 * np.pi * centres[:, None] * time).astype(np.float32)
    ours = speech_features.gammatone(sines, np.full(8, SAMPLES, np.int32), channels=8, window=1600)
    own = np.asarray(ours)[np.arange(8), 15, np.arange(8)]
    np.testing.assert_allclose(own, -0.5 * np.log(2), atol=0.02)
    assert (np.asarray(ours)[:, 15].argmax(-1) == np.arange(8)).all()


def test_gammatone_is_what_scipys_filters_let_pass():
    noise = np.random.default_rng(1).normal(size=RATE).astype(np.float32)
    ours = speech_features.gammatone(noise[None], np.array([RATE], np.int32), window=2048)[0]
    inner = slice(10, 90)
    for i, centre in enumerate(speech_features.gammatone_centres(40)[:-2]):
        passed = scipy.signal.lfilter(*scipy.signal.gammatone(centre, "iir", fs=RATE), noise)
        weight = np.hanning(2049)[:-1] ** 2
        level = [
            np.sqrt((weight * passed[t * 160 - 1024 : t * 160 + 1024] ** 2).sum() / weight.sum())
            for t in range(10, 90)
        ]
        # the same power; frame by frame they differ by the recursive filters' delay
        assert abs(np.exp(ours[inner, i]).mean() / np.mean(level) - 1) < 0.08, centre
        assert np.corrcoef(ours[inner, i], np.log(level))[0, 1] > 0.8, centre


def test_slopes_are_librosas():
    counts = np.array([12, 20], np.int32)
    x = np.random.default_rng(2).normal(size=(2, 20, 3)).astype(np.float32)
    slopes = jax.jit(lambda x, n: speech_features.with_slopes(x, n, 2))
    ours = np.asarray(slopes(x, counts))
    for b, n in enumerate(counts):
        for order in range(3):
            part = ours[b, :n, order * 3 : order * 3 + 3]
            theirs = x[b, :n].T
            if order:
                theirs = librosa.feature.delta(theirs, order=order, mode="nearest")
            np.testing.assert_allclose(part, theirs.T, atol=1e-5)
    parabola = np.arange(20.0)[None, :, None] ** 2
    ours = speech_features.with_slopes(parabola, np.array([20]), 2)[0, 4:-4]
    np.testing.assert_allclose(ours[:, 1], 2 * np.arange(4, 16), rtol=1e-4)
    np.testing.assert_allclose(ours[:, 2], 2, rtol=1e-4)


def test_prosody_of_a_sine():
    """220 Hz at unit amplitude, in the inner frames, with nothing behind the row's end."""
    time = np.arange(SAMPLES) / RATE
    x = np.where(np.arange(SAMPLES) < 4000, np.sin(2 * np.pi * 220 * time), np.nan)
    inner = np.asarray(jax.jit(prosody)(x[None].astype(np.float32), np.array([4000])))[0, 4:20]
    np.testing.assert_allclose(np.exp(inner[:, 0]), 220, rtol=0.005)
    assert (inner[:, 1] > 0.98).all()
    np.testing.assert_allclose(inner[:, 2], 0.5**0.5, rtol=0.02)
    np.testing.assert_allclose(inner[:, 3], 440 / RATE, atol=1 / 320)


def test_energy_and_crossings_are_librosas():
    for ours, wave in rows(prosody):
        settings = {"frame_length": 320, "hop_length": 160}
        energy = librosa.feature.rms(y=wave, pad_mode="constant", **settings)[0]
        np.testing.assert_allclose(ours[:, 2], energy[: len(ours)], rtol=1e-4)
        crossings = librosa.feature.zero_crossing_rate(wave, **settings)[0]
        # the ends differ: zeros beyond them here, the last sample repeated there
        np.testing.assert_allclose(ours[1:-2, 3], crossings[1 : len(ours) - 2], atol=1e-6)


def tone(hertz, seconds=0.4):
    """Ten harmonics, falling with their number, with random phases."""
    rng = np.random.default_rng(int(hertz))
    time = np.arange(int(seconds * RATE)) / RATE
    parts = [np.sin(2 * np.pi * k * hertz * time + rng.uniform(0, 6)) / k for k in range(1, 11)]
    return np.sum(parts, axis=0).astype(np.float32)


def test_pitch_of_harmonic_tones_is_librosas():
    """Within 1 % of YIN's, which looks at full-rate differences, and of the truth."""
    tones = [65, 82, 110, 147, 196, 220, 261, 290]
    batch = np.stack([tone(hertz) for hertz in tones])
    hertz, voicing = jax.jit(pitch)(batch, np.full(len(tones), batch.shape[1]))
    inner = slice(6, -6)
    for b, true in enumerate(tones):
        ours = np.asarray(hertz)[b, inner]
        np.testing.assert_allclose(ours, true, rtol=0.01)
        theirs = librosa.yin(batch[b], fmin=60, fmax=400, sr=RATE, hop_length=160)
        np.testing.assert_allclose(np.median(ours), np.median(theirs), rtol=0.01)
        assert np.asarray(voicing)[b, inner].min() > 0.9


def test_noise_and_silence_are_not_voiced():
    noise = np.random.default_rng(0).normal(size=(4, 8000)).astype(np.float32)
    noise[3] = 0
    voicing = np.asarray(jax.jit(pitch)(noise, np.full(4, 8000))[1])
    assert (voicing[:3] > 0.5).mean() < 0.25 and (voicing[3] == 0).all()
    everywhere = np.asarray(jax.jit(prosody)(noise, np.full(4, 8000)))[3]
    np.testing.assert_allclose(everywhere[:, 0], np.log(60), rtol=1e-6)


def test_interpolation_is_numpys():
    rng = np.random.default_rng(0)
    values, known = rng.normal(size=(6, 15)).astype(np.float32), rng.random((6, 15)) < 0.3
    known[4], known[5] = False, True
    ours = np.asarray(jax.jit(interpolated)(values, known, -7.0))
    for b in range(6):
        at = np.flatnonzero(known[b])
        expected = np.interp(np.arange(15), at, values[b, at]) if len(at) else np.full(15, -7.0)
        np.testing.assert_allclose(ours[b], expected, atol=1e-6)


def test_errors_say_what_is_wrong():
    with pytest.raises(UserError, match="transform=256: must be at least the window's 400"):
        speech_features.log_power(audio(), LENGTHS, transform=256)
    with pytest.raises(UserError, match="order=50: must be at most the 40"):
        speech_features.mfcc(audio(), LENGTHS, order=50)
    with pytest.raises(UserError, match="slopes=9"):
        speech_features.with_slopes(audio()[..., None], LENGTHS, 9)
