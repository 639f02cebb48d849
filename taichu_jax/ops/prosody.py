"""Pitch, voicing, loudness and zero crossings of speech, computed on the device.

Pitch is the lag at which speech is most like itself (normalised cross-correlation, as in RAPT, Talkin
1995, without its dynamic programme), found at 4 kHz: speech is low-passed at 1.6 kHz first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.signal

from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.speech_frames import HOP, RATE, frame_count, windows

THINNING = 4  # pitch is looked for in every fourth sample
COMPARED = 192  # samples at 4 kHz that are compared with their shifted selves, 48 ms
PREFERENCE = 0.9  # the shortest lag as good as this share of the best wins: no octave too low
VOICED = 0.5  # correlation from which a frame counts as voiced
QUIET = 1e-4  # mean power (of unit variance) that lowers the correlation of silence


def prosody(
    audio: jax.Array,
    lengths: jax.Array,
    *,
    window: int = 320,
    low: float = 60.0,
    high: float = 300.0,
) -> jax.Array:
    """float32 [B, T // 160, 4]: ln F0, voicing, root mean square, rate of zero crossings.

    ln F0 is interpolated where speech is unvoiced, and ln(low) if it is nowhere voiced. Voicing is the
    correlation at the lag of the pitch, 0 to 1.

    Args:
      audio: [B, T] at 16 kHz, of unit variance.
      lengths: int32 [B], the real samples.
      window: samples for root mean square and zero crossings.
      low, high: Hz, where F0 is looked for.
    """
    hertz, voicing = pitch(audio, lengths, low=low, high=high)
    real = within(frame_count(lengths), hertz.shape[1])
    log_hertz = interpolated(jnp.log(hertz), real & (voicing > VOICED), np.log(low))
    frames = windows(audio, lengths, window)
    energy = jnp.sqrt(jnp.square(frames).mean(-1))
    below = frames < 0
    crossings = (below[..., 1:] != below[..., :-1]).sum(-1) / window
    return jnp.stack([log_hertz, voicing, energy, crossings], axis=-1)


def pitch(
    audio: jax.Array, lengths: jax.Array, *, low: float = 60.0, high: float = 300.0
) -> tuple[jax.Array, jax.Array]:
    """(F0 in Hz, correlation from 0 to 1) of every frame, both [B, T // 160]."""
    rate = RATE / THINNING
    first, last = int(rate / high), int(np.ceil(rate / low))  # lags
    frames = windows(
        _thinned(audio, lengths), lengths // THINNING, COMPARED + last + 2, hop=HOP // THINNING
    )
    frames -= frames.mean(-1, keepdims=True)

    # products of the first COMPARED samples with those `lag` later, all lags at once
    size = scipy.fft.next_fast_len(frames.shape[-1], real=True)
    start = jnp.fft.rfft(frames[..., :COMPARED], n=size)
    products = jnp.fft.irfft(jnp.conj(start) * jnp.fft.rfft(frames, n=size), n=size)
    sums = jnp.pad(jnp.cumsum(jnp.square(frames), axis=-1), ((0, 0), (0, 0), (1, 0)))
    energies = sums[..., COMPARED:] - sums[..., :-COMPARED]
    lags = slice(first - 1, last + 2)  # with a neighbour on both sides, for the parabola
    energy = energies[..., :1] * jnp.maximum(energies[..., lags], 0.0)
    correlation = products[..., lags] / (jnp.sqrt(energy) + QUIET * COMPARED)

    before, here, after = (correlation[..., i : i + last - first + 1] for i in range(3))
    bend = jnp.minimum(before - 2 * here + after, -1e-6)
    shift = jnp.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    height = jnp.where(
        (here >= before) & (here > after), here - 0.25 * (before - after) * shift, 0.0
    )
    best = height.max(-1, keepdims=True)
    chosen = jnp.argmax(height >= PREFERENCE * best, axis=-1)[..., None]  # the first that is true
    lag = first + chosen + jnp.take_along_axis(shift, chosen, axis=-1)
    voicing = jnp.take_along_axis(height, chosen, axis=-1)
    return rate / lag[..., 0], jnp.clip(voicing[..., 0], 0.0, 1.0)


def interpolated(values: jax.Array, known: jax.Array, otherwise: float) -> jax.Array:
    """values [B, F] where `known`, straight lines between, the nearest known one beyond the ends.

    A row where nothing is known is `otherwise`.
    """
    frames = values.shape[1]
    index = jnp.broadcast_to(jnp.arange(frames), values.shape)
    left = jax.lax.cummax(jnp.where(known, index, -1), axis=1)
    right = jax.lax.cummin(jnp.where(known, index, frames), axis=1, reverse=True)
    has_left, has_right = left >= 0, right < frames
    first = jnp.take_along_axis(values, jnp.maximum(left, 0), axis=1)
    second = jnp.take_along_axis(values, jnp.minimum(right, frames - 1), axis=1)
    share = (index - left) / jnp.maximum(right - left, 1)
    line = first + share * (second - first)
    ends = jnp.where(has_left, first, jnp.where(has_right, second, otherwise))
    return jnp.where(has_left & has_right, line, ends)


def _thinned(audio, lengths):
    """Every fourth sample of low-passed audio, [B, T // 4]."""
    taps = scipy.signal.firwin(33, 1600, fs=RATE).astype(np.float32)
    samples = audio.shape[1] // THINNING * THINNING
    x = zero_beyond(audio.astype(jnp.float32), within(lengths, audio.shape[1]))[:, :samples]
    half = len(taps) // 2
    return jax.lax.conv_general_dilated(
        x[..., None],
        taps[:, None, None],
        (THINNING,),
        ((half, half + 1 - THINNING),),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )[..., 0]
