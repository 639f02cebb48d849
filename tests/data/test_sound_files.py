"""Every kind of sound file is decoded right, and every kind of damage is refused with its reason."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from taichu_jax.data import audio
from taichu_jax.data.items import Damaged
from tests.data.files import sound

HERTZ = 440.0


def tone(rate, seconds=0.5, level=0.5, channels=0):
    """A sine; with channels, each of them at its own level."""
    wave = level * np.sin(2 * np.pi * HERTZ * np.arange(round(rate * seconds)) / rate)
    return wave if not channels else wave[:, None] * np.linspace(0.2, 1.0, channels)


def close(wave, level, atol):
    """The middle of a wave against the analytic sine at 16 kHz."""
    assert wave.dtype == np.float32 and wave.ndim == 1 and abs(len(wave) - 8000) <= 1
    expected = level * np.sin(2 * np.pi * HERTZ * np.arange(len(wave)) / 16000)
    np.testing.assert_allclose(wave[400:-400], expected[400:-400], atol=atol)


@pytest.mark.parametrize(
    "kind, subtype, atol",
    [
        ("WAV", "PCM_U8", 8e-3), ("WAV", "PCM_16", 5e-5), ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6), ("WAV", "FLOAT", 1e-6), ("WAV", "DOUBLE", 1e-6), ("WAV", "ULAW", 0.02),
        ("FLAC", "PCM_S8", 8e-3), ("FLAC", "PCM_16", 5e-5), ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.02), ("OGG", "OPUS", 0.05),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [0, 2, 6])
def test_every_coding_and_number_of_channels(kind, subtype, atol, channels):
    if subtype == "OPUS" and channels == 6:
        pytest.skip("Opus keeps only the low notes of one of six channels")
    rate = 48000 if subtype == "OPUS" else 16000
    wave = audio.decode(sound(tone(rate, channels=channels), rate, kind, subtype))
    close(wave, 0.5 * (np.linspace(0.2, 1.0, channels).mean() if channels else 1), max(atol, 2e-5))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_every_rate_is_resampled_to_the_analytic_sine(rate):
    close(audio.decode(sound(tone(rate), rate, "WAV", "FLOAT")), 0.5, 2e-4)


def test_mp3_is_the_tone_after_a_delay():
    wave = audio.decode(sound(tone(44100), 44100, "MP3", "MPEG_LAYER_III"))
    expected = 0.5 * np.sin(2 * np.pi * HERTZ * np.arange(len(wave)) / 16000)
    spectrum, other = (np.abs(np.fft.rfft(x[1000:5000])) for x in (wave, expected))
    assert spectrum.argmax() == other.argmax()
    assert spectrum.max() == pytest.approx(other.max(), rel=0.03)


def test_lossy_overshoot_is_clipped():
    wave = audio.decode(sound(tone(16000, level=1.4), subtype="FLOAT"))
    assert wave.max() == 1 and wave.min() == -1


def with_value(value):
    x = tone(16000).astype(np.float32)
    x[100] = value
    return sound(x, subtype="FLOAT")


def flac_of_unknown_length():
    data = bytearray(sound(tone(16000), kind="FLAC"))
    data[21] |= 15
    data[22:26] = b"\xff" * 4
    return bytes(data)


def flac_with_another_digest():
    data = bytearray(sound(tone(16000), kind="FLAC"))
    data[30] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    "data, reason",
    [
        (lambda: with_value(np.nan), "not finite"),
        (lambda: with_value(np.inf), "not finite"),
        (lambda: with_value(3e4), r"far out of \[-1, 1\] \(peak 3e\+04\)"),
        (lambda: sound(np.zeros(0)), "empty"),
        (lambda: sound(np.zeros(4000)), "silent"),
        (lambda: sound(tone(16000), 900), "900 samples a second"),
        (flac_of_unknown_length, "too long"),
        (flac_with_another_digest, r"damaged \(checksum\)"),
        (lambda: b"", "not WAV, FLAC, OGG or MP3"),
        (lambda: sound(tone(16000), kind="AIFF"), "not WAV, FLAC, OGG or MP3"),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "not WAV, FLAC, OGG or MP3"),
        (lambda: sound(tone(16000))[:44] + b"", "cut short"),
    ],
)
def test_what_cannot_be_used_says_why(data, reason):
    with pytest.raises(Damaged, match=reason):
        audio.decode(data())


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_every_tenth_of_a_file_is_refused(kind, tmp_path):
    data = sound(tone(16000), kind=kind)
    for tenth in range(10):
        (tmp_path / "a.bin").write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(Damaged, match=r"cut short|cannot be decoded|empty"):
            audio.decode(tmp_path / "a.bin")


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_no_flipped_bit_passes_a_checksum(kind):
    data, rng = sound(tone(16000), kind=kind), np.random.default_rng(0)
    whole, changed = audio.decode(data), 0
    for _ in range(80):
        harmed = bytearray(data)
        harmed[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            changed += not np.array_equal(audio.decode(bytes(harmed)), whole)
        except Damaged:
            continue
    assert changed == 0


def test_a_missing_page_and_a_missing_end_are_found():
    data = sound(tone(16000, 3.0) + np.random.default_rng(0).normal(size=48000) * 0.1, kind="OGG")
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"OggS"]
    assert len(starts) > 4
    with pytest.raises(Damaged, match="a page is missing"):
        audio.decode(data[: starts[3]] + data[starts[4] :])
    with pytest.raises(Damaged, match="cut short"):
        audio.decode(data[: starts[-1]])


def test_a_wav_from_a_pipe_has_no_length_and_is_read():
    data = bytearray(sound(tone(16000)))
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    close(audio.decode(bytes(data)), 0.5, 5e-5)


def test_the_wrong_suffix_is_no_matter(tmp_path):
    (tmp_path / "a.ogg").write_bytes(sound(tone(16000)))
    close(audio.decode(tmp_path / "a.ogg"), 0.5, 5e-5)
    with pytest.raises(Damaged, match="cannot be read"):
        audio.decode(tmp_path)
