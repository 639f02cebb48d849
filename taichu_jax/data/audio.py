"""Sound: decoding to 16 kHz mono, log-mel spectrograms, and augmentation.

A wave is float32 [samples] in [-1, 1] at 16 kHz; a log-mel spectrogram is float32 [frames, bands]
with frames = 1 + samples // HOP. Augmentations are pure functions of (array, numpy Generator).
"""

import dataclasses
import functools
import io
import math
import re
import struct
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.sparse
import soundfile
import soxr

from taichu_jax.data.integrity import check_flac, read_file, sound_format
from taichu_jax.data.items import Damaged

RATE = 16_000  # samples per second
WINDOW = 400  # 25 ms; also the length of the transform
HOP = 160  # 10 ms
FLOOR = 1e-6  # power of noise at about -80 dB full scale: quieter than this is silence
RATES = (1_000, 768_000)  # samples per second of a file
MOST_VALUES = 2**27  # of a file, over all channels, and of its wave: half a GiB
LOUDEST = 4.0  # lossy formats overshoot a little; integers taken for floats, a lot


# ------------------------------------------------------------------------------------ coding


def decode(encoded: bytes | Path) -> np.ndarray:
    """Wave float32 [samples] of a WAV, FLAC, OGG or MP3 of any rate and number of channels.

    Raises:
      Damaged: not decodable, cut short, empty, too long, not finite, far out of [-1, 1], or silence.
    """
    data = read_file(encoded) if isinstance(encoded, Path) else encoded
    kind = sound_format(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            frames, rate, channels = file.frames, file.samplerate, file.channels
            _check_size(frames, rate, channels)
            wave = file.read(dtype="int32" if kind == "FLAC" else "float32", always_2d=True)
    except (RuntimeError, TypeError, ValueError, OSError, MemoryError) as error:
        reason = re.sub(r"<_io.*?>", "file", str(error))
        raise Damaged(f"sound cannot be decoded ({reason})") from error
    if len(wave) < frames:
        raise Damaged("sound is cut short")
    if kind == "FLAC":
        check_flac(data, wave)
        wave = wave.astype(np.float32) * np.float32(2**-31)
    with np.errstate(all="ignore"):  # what is not finite is found below
        wave = wave.mean(axis=1)
    if rate != RATE and len(wave):
        wave = soxr.resample(wave, rate, RATE)
    if len(wave) < HOP:
        raise Damaged("sound is empty")
    # The one place where sound is checked: a single sample that is not finite makes the peak so.
    peak = np.abs(wave).max()
    if not np.isfinite(peak):
        raise Damaged("sound is not finite")
    if peak > LOUDEST:
        raise Damaged(f"sound is far out of [-1, 1] (peak {peak:.4g})")
    if peak < 1e-4:
        raise Damaged("sound is silent")
    return np.clip(wave, -1.0, 1.0)


def _check_size(frames: int, rate: int, channels: int) -> None:
    """Raises Damaged for a header that promises what nobody could hold."""
    if not RATES[0] <= rate <= RATES[1]:
        raise Damaged(f"sound has {rate} samples a second, not {RATES[0]:,} to {RATES[1]:,}")
    if frames * channels > MOST_VALUES or frames / rate * RATE > MOST_VALUES:
        raise Damaged(f"sound is too long ({frames:,} samples of {channels} channels)")


def encode_flac(wave: np.ndarray) -> bytes:
    """16-bit FLAC of a wave."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def flac_samples(encoded: bytes) -> int:
    """Number of samples, from the header alone."""
    if encoded[:4] != b"fLaC":
        raise Damaged("not FLAC")
    return struct.unpack(">Q", encoded[18:26])[0] & (1 << 36) - 1


def trim_silence(wave: np.ndarray, below_peak_db: float = 40.0) -> np.ndarray:
    """The wave without its quiet ends: frames (25 ms) that far below the loudest one.

    50 ms are kept on each side, since consonants are quiet.
    """
    frames = _frames(wave)
    loudness = np.einsum("ft,ft->f", frames, frames)
    loud = np.flatnonzero(loudness > loudness.max() * 10 ** (-below_peak_db / 10))
    margin = RATE // 20
    first = max(0, loud[0] * HOP - margin)
    return wave[first : loud[-1] * HOP + margin]


# ----------------------------------------------------------------------------------- log-mel


def frame_count(samples: int) -> int:
    """Frames of a wave's spectrogram."""
    return 1 + samples // HOP


def log_mel(wave: np.ndarray, bands: int = 80) -> np.ndarray:
    """ln(max(FLOOR, mel power)) float32 [1 + samples // HOP, bands].

    Frame t is centred on sample t * HOP (zeros beyond the ends), under a periodic Hann window;
    the power spectrum goes through triangular filters, equally spaced on the mel scale of
    Slaney's Auditory Toolbox from 0 to 8 kHz and of unit area. This is
    `librosa.feature.melspectrogram(n_fft=400, hop_length=160, power=2)` with its defaults.
    """
    frames = _frames(wave.astype(np.float32, copy=False)) * _hann()
    spectrum = scipy.fft.rfft(frames, axis=-1, overwrite_x=True)
    parts = spectrum.view(np.float32)  # real and imaginary parts side by side
    np.square(parts, out=parts)
    # Sparse (two bands per bin): a dense product would start BLAS threads that fight the step's.
    mel = np.ascontiguousarray((_filters(bands) @ parts.T).T)
    np.maximum(mel, FLOOR, out=mel)
    return np.log(mel, out=mel)


def normalise_mel(mel: np.ndarray) -> np.ndarray:
    """Each band with mean 0 and variance 1 over the utterance (1e-5 is added to the variance)."""
    centred = mel - mel.mean(axis=0)
    variance = np.einsum("tb,tb->b", centred, centred) / len(mel)
    centred *= 1 / np.sqrt(variance + 1e-5)
    return centred


def normalise_wave(wave: np.ndarray) -> np.ndarray:
    """The wave with mean 0 and variance 1 (1e-7 is added to the variance, as in wav2vec 2.0)."""
    return (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)


def _frames(wave: np.ndarray) -> np.ndarray:
    """View float32 [frames, WINDOW] on the zero-padded wave."""
    padded = np.pad(wave, WINDOW // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]


@functools.cache
def _hann() -> np.ndarray:
    phase = 2 * np.pi * np.arange(WINDOW) / WINDOW
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


@functools.cache
def _filters(bands: int) -> scipy.sparse.csr_array:
    """float32 [bands, 2 * (WINDOW // 2 + 1)]; each column twice, for real and imaginary parts."""
    edges = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(RATE / 2), bands + 2))
    bins = np.arange(WINDOW // 2 + 1)[:, None] * RATE / WINDOW
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    filters = np.maximum(triangles, 0.0) * 2 / (high - low)
    return scipy.sparse.csr_array(np.repeat(filters, 2, axis=0).T.astype(np.float32))


# Slaney's scale: linear, 3 mel per 200 Hz, up to 1 kHz; above it 27 mel per factor of 6.4.
_STEP = math.log(6.4) / 27


def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) / _STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(_STEP * (mel - 15)))


# ------------------------------------------------------------------------------ augmentation


def gain(wave: np.ndarray, rng: np.random.Generator, decibels: float) -> np.ndarray:
    """Louder or quieter by up to `decibels`; peaks are clipped."""
    louder = wave * np.float32(10 ** (rng.uniform(-decibels, decibels) / 20))
    return np.clip(louder, -1, 1, out=louder)


def change_speed(wave: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Faster or slower by a factor in 1 +- amount; the pitch moves along.

    Ko et al. 2015, https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html, use 0.1.
    """
    factor = rng.uniform(1 - amount, 1 + amount)
    return soxr.resample(wave, RATE * factor, RATE, quality="QQ")  # cubic: fast, good enough here


def add_noise(wave: np.ndarray, rng: np.random.Generator, ratio_db: float) -> np.ndarray:
    """White noise at the given signal-to-noise ratio."""
    level = math.sqrt(float(wave @ wave) / len(wave)) * 10 ** (-ratio_db / 20)
    noise = rng.random(len(wave), dtype=np.float32)  # uniform: as white as Gaussian, and faster
    noise -= np.float32(0.5)
    noise *= np.float32(level * math.sqrt(12))
    noise += wave
    return noise


def shift(wave: np.ndarray, rng: np.random.Generator, samples: int) -> np.ndarray:
    """Later or earlier by up to `samples`: zeros come in, what passes the end is lost."""
    offset = int(rng.integers(-samples, samples, endpoint=True))
    moved = np.zeros_like(wave)
    if abs(offset) < len(wave):
        moved[max(0, offset) : len(wave) + min(0, offset)] = wave[max(0, -offset) :][
            : len(wave) - abs(offset)
        ]
    return moved


def crop(wave: np.ndarray, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, int]:
    """At most `samples` from a random place, and where it starts."""
    start = int(rng.integers(0, max(0, len(wave) - samples), endpoint=True))
    return wave[start : start + samples], start


def mask_bands(mel: np.ndarray, rng: np.random.Generator, width: int) -> np.ndarray:
    """Zeroes up to `width` neighbouring bands (SpecAugment, https://arxiv.org/abs/1904.08779)."""
    size = int(rng.integers(0, min(width, mel.shape[1]), endpoint=True))
    start = int(rng.integers(0, mel.shape[1] - size, endpoint=True))
    masked = mel.copy()
    masked[:, start : start + size] = 0
    return masked


def mask_frames(mel: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Zeroes up to `share` of the frames, in one stretch (SpecAugment)."""
    size = int(rng.integers(0, int(share * len(mel)), endpoint=True))
    start = int(rng.integers(0, len(mel) - size, endpoint=True))
    masked = mel.copy()
    masked[start : start + size] = 0
    return masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioAugment:
    """What training does to a recording. A zero turns a part off; masks hold for spectrograms.

    Masks zero a normalised spectrogram, so they set its mean; without normalisation leave them 0.
    """

    gain_db: float = 6.0
    speed: float = 0.1
    speed_probability: float = 0.5
    noise_db: float = 20.0  # the worst signal-to-noise ratio; drawn from here to 20 dB better
    noise_probability: float = 0.3
    shift_seconds: float = 0.0
    band_masks: int = 1
    band_width: int = 10
    frame_masks: int = 1
    frame_share: float = 0.1

    def wave(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augments float32 [samples]; the length may change with the speed."""
        return self.sounding(self.timed(wave, rng), rng)

    def timed(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The part of `wave` that changes when something is heard: speed and shift."""
        if rng.random() < self.speed_probability and self.speed:
            wave = change_speed(wave, rng, self.speed)
        if self.shift_seconds:
            wave = shift(wave, rng, round(self.shift_seconds * RATE))
        return wave

    def sounding(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The rest of `wave`, which changes what is heard: noise and loudness."""
        if rng.random() < self.noise_probability:
            wave = add_noise(wave, rng, self.noise_db + 20 * rng.random())
        return gain(wave, rng, self.gain_db) if self.gain_db else wave

    def mel(self, mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augments float32 [frames, bands]."""
        for _ in range(self.band_masks):
            mel = mask_bands(mel, rng, self.band_width)
        for _ in range(self.frame_masks):
            mel = mask_frames(mel, rng, self.frame_share)
        return mel
