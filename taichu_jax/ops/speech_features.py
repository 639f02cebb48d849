"""Spectral descriptions of speech, computed on the device: what the workers of PASE regress.

Every function takes audio [B, T] at 16 kHz with `lengths` [B] and gives float32 [B, T // 160, C], a
frame every 10 ms, centred on its first sample. Power spectra are of frames under a periodic Hann
window, zeros beyond both ends. Nothing behind a row's length is looked at; frames behind
lengths // 160 have no meaning.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from taichu_jax.errors import UserError
from taichu_jax.ops.speech_frames import RATE, windows

FLOOR = 1e-6  # power that counts as silence, for samples of unit variance (or full scale)
LOWEST_GAMMATONE = 500.0  # Hz, the authors' first centre frequency
DELTA_WIDTH = 9  # frames that a slope is fitted to, librosa's default


def power_spectrum(audio: jax.Array, lengths: jax.Array, window: int, transform: int) -> jax.Array:
    """|X|^2 in transform // 2 + 1 bins, of `window` samples followed by zeros."""
    if transform < window:
        raise UserError(f"transform={transform}: must be at least the window's {window} samples")
    spectrum = jnp.fft.rfft(windows(audio, lengths, window) * _hann(window), n=transform)
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def log_power(
    audio: jax.Array, lengths: jax.Array, *, window: int = 400, transform: int = 2048
) -> jax.Array:
    """10 log10 of the power spectrum."""
    return _decibels(power_spectrum(audio, lengths, window, transform))


def filter_bank(
    audio: jax.Array,
    lengths: jax.Array,
    *,
    bands: int = 40,
    window: int = 400,
    transform: int | None = None,
) -> jax.Array:
    """ln of the power in mel bands (`mel_filters`)."""
    return jnp.log(jnp.maximum(_mel_power(audio, lengths, bands, window, transform), FLOOR))


def mfcc(
    audio: jax.Array,
    lengths: jax.Array,
    *,
    order: int = 20,
    bands: int = 40,
    window: int = 400,
    transform: int | None = None,
) -> jax.Array:
    """The first `order` coefficients of the orthonormal DCT-II of the mel bands' decibels."""
    if order > bands:
        raise UserError(f"order={order}: must be at most the {bands} mel bands")
    decibels = _decibels(_mel_power(audio, lengths, bands, window, transform))
    n, k = np.arange(bands), np.arange(order)[:, None]
    cosines = np.cos(np.pi * k * (2 * n + 1) / (2 * bands)) * np.sqrt(2 / bands)
    cosines[0] *= np.sqrt(0.5)
    return decibels @ cosines.T.astype(np.float32)


def gammatone(
    audio: jax.Array,
    lengths: jax.Array,
    *,
    channels: int = 40,
    window: int = 400,
    transform: int | None = None,
    lowest: float = LOWEST_GAMMATONE,
) -> jax.Array:
    """ln of the root mean square of every gammatone filter's output in the window.

    The filters act on the spectrum: bins are weighted with the squared magnitude of the fourth-order
    filter, (1 + ((f - c) / b)^2)^-4, b = 1.019 ERB(c), which is 1 at its centre c. The authors run
    recursive filters over the samples and then cut windows; the two differ by the filters' ringing
    across the windows' edges.
    """
    size = transform or _power_of_two(window)
    power = power_spectrum(audio, lengths, window, size)
    bins = np.arange(size // 2 + 1) * RATE / size
    centres = gammatone_centres(channels, lowest)[:, None]
    bandwidth = 1.019 * 24.7 * (4.37e-3 * centres + 1)
    weights = (1 + np.square((bins - centres) / bandwidth)) ** -4
    # Parseval: twice (but for the ends) the sum over the bins, over the energy of the window
    weights *= np.where((bins == 0) | (bins == RATE / 2), 1, 2) / (
        size * np.square(_hann(window)).sum()
    )
    return 0.5 * jnp.log(jnp.maximum(power @ weights.T.astype(np.float32), FLOOR))


def gammatone_centres(channels: int, lowest: float = LOWEST_GAMMATONE) -> np.ndarray:
    """Hz, ascending and equally spaced on the scale of equivalent rectangular bandwidths.

    Slaney's Auditory Toolbox: the first is `lowest`, the next after the last would be 8 kHz.
    """
    offset = 9.26449 * 24.7
    steps = np.arange(channels) / channels
    return (lowest + offset) * ((RATE / 2 + offset) / (lowest + offset)) ** steps - offset


def mel_filters(bands: int, transform: int) -> np.ndarray:
    """[bands, transform // 2 + 1]: triangles of unit area, equally spaced on Slaney's mel scale."""
    step = np.log(6.4) / 27  # linear, 3 mel per 200 Hz, up to 1 kHz; then 27 mel per factor of 6.4
    edges = np.linspace(0, 15 + np.log(RATE / 2 / 1000) / step, bands + 2)
    edges = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp(step * (edges - 15)))
    low, centre, high = (edges[i : i + bands, None] for i in range(3))
    bins = np.arange(transform // 2 + 1) * RATE / transform
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(triangles, 0) * 2 / (high - low)


def with_slopes(x: jax.Array, counts: jax.Array, order: int) -> jax.Array:
    """x [B, F, C] and its derivatives over time up to `order`, [B, F, (order + 1) C].

    The n-th is that of the polynomial of degree n fitted to 9 frames, as in librosa's `delta`. Before
    the first and behind the last of the `counts` [B] real frames these are repeated (mode='nearest').
    """
    if not 0 <= order < DELTA_WIDTH:
        raise UserError(f"slopes={order}: must be from 0 to {DELTA_WIDTH - 1}")
    half, frames = DELTA_WIDTH // 2, x.shape[1]
    index = jnp.arange(-half, frames + half)
    index = jnp.clip(index, 0, jnp.maximum(counts - 1, 0)[:, None])
    padded = jnp.take_along_axis(x, index[..., None], axis=1)
    parts = [x]
    for n in range(1, order + 1):
        taps = scipy.signal.savgol_coeffs(DELTA_WIDTH, n, deriv=n, use="dot").tolist()
        parts.append(sum(tap * padded[:, i : i + frames] for i, tap in enumerate(taps)))
    return jnp.concatenate(parts, axis=-1)


def _mel_power(audio, lengths, bands, window, transform):
    size = transform or _power_of_two(window)
    power = power_spectrum(audio, lengths, window, size)
    return power @ mel_filters(bands, size).T.astype(np.float32)


def _decibels(power):
    return 10 / np.log(10) * jnp.log(jnp.maximum(power, FLOOR))


def _hann(size: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
