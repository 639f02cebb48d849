"""Distortions of speech on the device: the contamination module of PASE+ (arXiv 2001.09239).

Every function takes a random key and audio float32 [B, T], zero behind each row's `lengths` [B], and
distorts every row with its own draw; `Distortions` chooses the rows.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.speech_frames import RATE

OVERLAP_RATIOS = (5.0, 7.5, 10.0)  # dB, the authors' configuration, as all but the marked ones
NOISE_RATIOS = (0.0, 5.0, 10.0)  # dB
CLIP_FACTORS = (0.1, 0.3, 0.5)
GAPS = ((0.05, 0.025), (0.1, 0.05))  # seconds, mean and deviation
MOST_GAPS = 5
STOPPED = ((0, 1000), (1000, 2000), (2000, 4000), (4000, 8000))  # Hz, where stop bands lie
REVERBERATION = (0.3, 0.9)  # seconds to fall by 60 dB; ours
DIRECT_RATIOS = (0.0, 10.0)  # dB of direct over reflected sound; ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distortions:
    """Each distortion with its own probability for each row, in the authors' order.

    The draw is a function of (seed, step) alone, so that all objectives of a step can hear the same.
    Recordings that the authors mix in are replaced by what needs no files: impulse responses by
    decaying noise, noises by noise of a random colour, other speakers by the next row of the batch.
    Resampling to 8 kHz and the codec are left out.

    Attributes:
      seed: of the draws.
      reverberation, overlap, noise, clipping, gaps, stop_band: probabilities (defaults: the authors'
        configuration for PASE+).
    """

    seed: int = 0
    reverberation: float = 0.5
    overlap: float = 0.1
    noise: float = 0.4
    clipping: float = 0.2
    gaps: float = 0.2
    stop_band: float = 0.35

    def __call__(self, audio: jax.Array, lengths: jax.Array, step: jax.Array) -> jax.Array:
        """audio [B, T] distorted, of its own type; what is behind `lengths` is never looked at."""
        rng = jax.random.fold_in(fold_name(jax.random.key(self.seed), "distortions"), step)
        real = within(lengths, audio.shape[1])
        clean = x = zero_beyond(audio.astype(jnp.float32), real)
        parts = (
            ("reverberation", reverberate),
            ("overlap", lambda key, x: add_voice(key, x, jnp.roll(clean, 1, axis=0), lengths)),
            ("noise", lambda key, x: add_noise(key, x, lengths)),
            ("clipping", clip),
            ("gaps", lambda key, x: cut_gaps(key, x, lengths)),
            ("stop_band", stop_band),
        )
        for name, change in parts:
            probability = getattr(self, name)
            if probability > 0:
                key = fold_name(rng, name)
                chosen = jax.random.bernoulli(fold_name(key, "rows"), probability, (len(x), 1))
                x = jnp.where(chosen & real, change(key, x), x)
        return x.astype(audio.dtype)


def reverberate(rng: jax.Array, audio: jax.Array) -> jax.Array:
    """Convolved with 1 and a tail of decaying noise (Polack's model of a room); energy kept."""
    batch, samples = audio.shape
    tail = min(samples, round(REVERBERATION[1] * RATE))
    seconds = _uniform(fold_name(rng, "time"), batch, *REVERBERATION)
    ratio = _uniform(fold_name(rng, "direct"), batch, *DIRECT_RATIOS)
    fall = jnp.exp(-np.log(1000) * jnp.arange(1, tail) / RATE / seconds)
    reflected = jax.random.normal(fold_name(rng, "reflections"), (batch, tail - 1)) * fall
    reflected *= 10 ** (-ratio / 20) * jax.lax.rsqrt(jnp.square(reflected).sum(-1, keepdims=True))
    response = jnp.concatenate([jnp.ones((batch, 1)), reflected], axis=-1)
    size = scipy.fft.next_fast_len(samples + tail, real=True)
    product = jnp.fft.rfft(audio, n=size) * jnp.fft.rfft(response, n=size)
    return same_energy(jnp.fft.irfft(product, n=size)[:, :samples], audio)


def add_voice(rng: jax.Array, audio: jax.Array, other: jax.Array, lengths: jax.Array) -> jax.Array:
    """With `other` [B, T] starting somewhere in the first three quarters; energy kept."""
    samples = audio.shape[1]
    start = _uniform(fold_name(rng, "start"), len(audio), 0.0, 0.75) * lengths[:, None]
    index = jnp.arange(samples) - start.astype(jnp.int32)
    late = jnp.take_along_axis(other, jnp.maximum(index, 0), axis=1)
    late = jnp.where((index >= 0) & within(lengths, samples), late, 0.0)
    return mixed(audio, late, _one_of(fold_name(rng, "ratio"), len(audio), OVERLAP_RATIOS))


def add_noise(rng: jax.Array, audio: jax.Array, lengths: jax.Array) -> jax.Array:
    """With noise of power 1 / f^a, a drawn from 0 (white) to 2 (brown); energy kept."""
    batch, samples = audio.shape
    colour = _uniform(fold_name(rng, "colour"), batch, 0.0, 2.0)
    frequency = jnp.arange(1, samples // 2 + 2)
    parts = jax.random.normal(fold_name(rng, "noise"), (2, batch, len(frequency)))
    parts *= frequency ** (-colour / 2)
    noise = jnp.fft.irfft(jax.lax.complex(*parts), n=samples)
    noise = zero_beyond(noise, within(lengths, samples))
    return mixed(audio, noise, _one_of(fold_name(rng, "ratio"), batch, NOISE_RATIOS))


def clip(rng: jax.Array, audio: jax.Array) -> jax.Array:
    """Limited to a share of the row's smallest and largest sample."""
    factor = _one_of(fold_name(rng, "factor"), len(audio), CLIP_FACTORS)
    low, high = audio.min(-1, keepdims=True), audio.max(-1, keepdims=True)
    return jnp.clip(audio, factor * low, factor * high)


def cut_gaps(rng: jax.Array, audio: jax.Array, lengths: jax.Array) -> jax.Array:
    """Silent in 1 to 5 stretches of about 50 or 100 ms.

    The authors put them in the middle of what a detector calls speech; here they lie anywhere.
    """
    shape = (len(audio), MOST_GAPS)
    mean, deviation = jnp.asarray(GAPS, jnp.float32).T
    kind = jax.random.randint(fold_name(rng, "kind"), shape, 0, len(GAPS))
    seconds = jax.random.normal(fold_name(rng, "size"), shape) * deviation[kind] + mean[kind]
    number = jax.random.randint(fold_name(rng, "number"), shape[:1], 1, MOST_GAPS + 1)
    half = jnp.where(within(number, MOST_GAPS), jnp.maximum(seconds, 0.0) * RATE / 2, 0.0)
    centre = jax.random.uniform(fold_name(rng, "place"), shape) * lengths[:, None]
    distance = jnp.abs(jnp.arange(audio.shape[1])[:, None] - centre[:, None])
    return jnp.where((distance < half[:, None]).any(-1), 0.0, audio)


def stop_band(rng: jax.Array, audio: jax.Array) -> jax.Array:
    """Without the frequencies of one random band, up to 1 kHz or an octave wide; energy kept."""
    batch, samples = audio.shape
    ranges = jnp.asarray(STOPPED, jnp.float32)
    ranges = ranges[jax.random.randint(fold_name(rng, "range"), (batch,), 0, len(STOPPED))]
    edges = jax.random.uniform(fold_name(rng, "edges"), (batch, 2))
    edges = jnp.sort(ranges[:, :1] + edges * (ranges[:, 1:] - ranges[:, :1]), axis=-1)
    frequency = jnp.arange(samples // 2 + 1) * (RATE / samples)
    stopped = (frequency >= edges[:, :1]) & (frequency <= edges[:, 1:])
    passed = jnp.where(stopped, 0.0, jnp.fft.rfft(audio))
    return same_energy(jnp.fft.irfft(passed, n=samples), audio)


def mixed(audio: jax.Array, noise: jax.Array, ratio: jax.Array) -> jax.Array:
    """audio + noise at a signal-to-noise ratio [B, 1] in dB, with the energy of audio."""
    energy, own = (jnp.square(x).sum(-1, keepdims=True) for x in (audio, noise))
    level = jnp.sqrt(energy / jnp.maximum(own, 1e-9)) * 10 ** (-ratio / 20)
    return jnp.where(own > 1e-9, same_energy(audio + level * noise, audio), audio)


def same_energy(x: jax.Array, like: jax.Array) -> jax.Array:
    """x [B, T] scaled to the energy of `like`; `like` itself where nothing is left of x."""
    energy, own = (jnp.square(a).sum(-1, keepdims=True) for a in (like, x))
    return jnp.where(own > 1e-9, x * jnp.sqrt(energy / jnp.maximum(own, 1e-9)), like)


def _uniform(rng, batch, low, high):
    return jax.random.uniform(rng, (batch, 1), minval=low, maxval=high)


def _one_of(rng, batch, values):
    return jax.random.choice(rng, jnp.asarray(values, jnp.float32), (batch, 1))
