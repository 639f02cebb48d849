"""Log-mel against librosa; decoding of damaged files; augmentation."""

import io
import shutil

import librosa
import numpy as np
import pytest
import soundfile

from taichu_jax.data import audio
from taichu_jax.data.fetch import SAMPLE
from taichu_jax.data.items import Damaged

OGG = sorted(SAMPLE.rglob("*_desc_fr.ogg"))[0]


def wave(seconds=1.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=round(seconds * audio.RATE)).astype(np.float32) * 0.1


def encoded(samples, rate, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("bands", [40, 80])
@pytest.mark.parametrize("samples", [400, 1600, 20257])
def test_log_mel_equals_librosa(bands, samples):
    x = wave()[:samples] if samples < 20000 else audio.decode(OGG)
    power = librosa.feature.melspectrogram(
        y=x, sr=16000, n_fft=400, hop_length=160, n_mels=bands, power=2.0
    )
    mel = audio.log_mel(x, bands)
    assert mel.dtype == np.float32
    assert mel.shape == (audio.frame_count(len(x)), bands)
    np.testing.assert_allclose(mel, np.log(np.maximum(power.T, audio.FLOOR)), atol=1e-3)


def test_decode_mixes_and_resamples_a_tone():
    t = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 440 * t)
    x = audio.decode(encoded(np.stack([tone, 0 * tone], axis=1) * 0.8, 44100))
    assert x.dtype == np.float32 and x.shape == (16000,)
    expected = 0.4 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(x[500:-500], expected[500:-500], atol=1e-3)


def test_flac_keeps_the_wave():
    x = wave()
    flac = audio.encode_flac(x)
    assert audio.flac_samples(flac) == len(x)
    np.testing.assert_allclose(audio.decode(flac), x, atol=2**-15)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "cannot be decoded"),
        (b"OggS", "cut short"),
        (OGG.read_bytes()[:-100], "cut short"),
        (OGG.read_bytes()[:1000], "cut short"),
        (encoded(np.zeros(0), 16000), "empty"),
        (encoded(np.zeros(16000), 16000), "silent"),
        (encoded(np.full(1600, np.nan), 16000, subtype="FLOAT"), "not finite"),
    ],
)
def test_damaged_sounds_say_why(data, reason):
    with pytest.raises(Damaged, match=reason):
        audio.decode(data)


def test_every_shipped_recording_is_whole():
    for path in SAMPLE.rglob("*.ogg"):
        audio.decode(path)


def test_normalisation():
    mel = audio.normalise_mel(audio.log_mel(wave()))
    np.testing.assert_allclose(mel.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(mel.var(axis=0), 1, atol=1e-3)
    x = audio.normalise_wave(wave() + 0.3)
    assert abs(x.mean()) < 1e-4 and abs(x.var() - 1) < 1e-3


def test_trimming_cuts_only_silence():
    x = np.concatenate([np.zeros(8000, np.float32), wave(0.5), np.zeros(12000, np.float32)])
    trimmed = audio.trim_silence(x)
    assert 8000 <= len(trimmed) <= 8000 + 2 * audio.RATE // 20 + 2 * audio.WINDOW
    assert np.abs(trimmed).sum() == pytest.approx(np.abs(x).sum())


def test_change_speed_moves_length_and_pitch():
    tone = np.sin(2 * np.pi * 400 * np.arange(16000) / 16000).astype(np.float32)
    for seed in range(4):
        factor = np.random.default_rng(seed).uniform(0.9, 1.1)
        fast = audio.change_speed(tone, np.random.default_rng(seed), 0.1)
        assert len(fast) == pytest.approx(16000 / factor, abs=2)
        peak = np.abs(np.fft.rfft(fast)).argmax() * 16000 / len(fast)
        assert peak == pytest.approx(400 * factor, abs=2)


def test_noise_has_the_asked_level():
    x = wave(3.0)
    noise = audio.add_noise(x, np.random.default_rng(0), 10.0) - x
    assert 10 * np.log10((x @ x) / (noise @ noise)) == pytest.approx(10, abs=0.2)


def test_shift_loses_nothing_but_the_end():
    x = np.arange(1, 101, dtype=np.float32)
    for seed in range(20):
        moved = audio.shift(x, np.random.default_rng(seed), 30)
        assert moved.shape == x.shape
        kept = moved[moved > 0]
        assert len(kept) >= 70 and (np.diff(kept) == 1).all()
    assert not audio.shift(x[:5], np.random.default_rng(3), 10**6).any()


def test_crop_and_masks_stay_inside():
    x, mel = wave(), np.ones((50, 80), np.float32)
    for seed in range(20):
        part, start = audio.crop(x, np.random.default_rng(seed), 4000)
        np.testing.assert_array_equal(part, x[start : start + 4000])
        assert (audio.mask_bands(mel, np.random.default_rng(seed), 10) == 0).sum() <= 10 * 50
        assert (audio.mask_frames(mel, np.random.default_rng(seed), 0.2) == 0).sum() <= 10 * 80
    whole, start = audio.crop(x, np.random.default_rng(0), 10**6)
    assert start == 0 and len(whole) == len(x)
    assert (mel == 1).all()


def test_augmentation_depends_on_the_generator_alone():
    x, augment = wave(), audio.AudioAugment(shift_seconds=0.05)
    before = x.copy()
    first, second = (augment.wave(x, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(x, before)
    assert not np.array_equal(augment.wave(x, np.random.default_rng(6))[:1000], first[:1000])


def test_what_changes_the_time_and_what_changes_the_sound():
    x, augment = wave(), audio.AudioAugment(shift_seconds=0.05, speed_probability=1.0)
    rng = np.random.default_rng(5)
    timed = augment.timed(x, rng)
    both = augment.sounding(timed, rng)
    np.testing.assert_array_equal(both, augment.wave(x, np.random.default_rng(5)))
    assert len(timed) == len(both) != len(x)


def test_nothing_is_changed_with_everything_off():
    off = audio.AudioAugment(gain_db=0, speed=0, noise_probability=0, band_masks=0, frame_masks=0)
    x = wave()
    np.testing.assert_array_equal(off.wave(x, np.random.default_rng(0)), x)
    np.testing.assert_array_equal(off.mel(x[:, None], np.random.default_rng(0)), x[:, None])


def test_decode_reads_paths(tmp_path):
    shutil.copy(OGG, tmp_path / "a.ogg")
    np.testing.assert_array_equal(audio.decode(tmp_path / "a.ogg"), audio.decode(OGG.read_bytes()))
