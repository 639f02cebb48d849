"""How far two sounds are apart, to their spectra: phases do not count."""

from __future__ import annotations

import numpy as np
import scipy.fft

from taichu_jax.data.audio import FLOOR, HOP, WINDOW, log_mel


def mel_distance(mel: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of two log-mel spectrograms [F, bands]; 0.1 is about 10 % of power."""
    return float(np.abs(mel - other).mean())


def wave_mel_distance(wave: np.ndarray, other: np.ndarray, bands: int = 80) -> float:
    """`mel_distance` of two sounds of equal length."""
    return mel_distance(log_mel(wave, bands), log_mel(other, bands))


def log_spectral_distance(wave: np.ndarray, other: np.ndarray) -> float:
    """Mean over frames of the root mean square over bins of the difference in dB.

    Gray and Markel 1976, with the 25 ms windows of `data/audio.py`; power below -60 dB counts as such.
    """
    decibels = [10 * np.log10(np.maximum(_power(x), FLOOR)) for x in (wave, other)]
    return float(np.sqrt(np.square(decibels[0] - decibels[1]).mean(axis=-1)).mean())


def _power(wave: np.ndarray) -> np.ndarray:
    padded = np.pad(np.asarray(wave, np.float64), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return np.square(np.abs(scipy.fft.rfft(frames * window, axis=-1)))
