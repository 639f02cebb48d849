"""Sound from log-mel frames as they come, without a joint that can be heard.

`feed` and `finish` give samples one after the other, those of `inference/vocoder.py`: F frames are
(F - 1) * 160 samples, or up to 159 more.

    NeuralStream       windows with exactly the frames that its samples depend on; equal to the whole
    GriffinLimStream   samples that are out stand, those to come are fitted to them
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.fft

from taichu_jax.data.audio import HOP, WINDOW
from taichu_jax.errors import UserError
from taichu_jax.inference.sliding import SlidingWindow, View
from taichu_jax.inference.vocoder import ITERATIONS, NeuralVocoder, checked_samples, power_spectrum

AHEAD = 2  # frames; with 2 the spectrogram comes as near as that of the whole at once
MOMENTUM = 0.99  # of Griffin-Lim's fast form (Perraudin et al. 2013), librosa's default
_HALF = WINDOW // 2
_TAIL = WINDOW - HOP  # samples that a frame shares with later ones


class SoundStream(Protocol):
    """Frames in, samples out."""

    def feed(self, mel: np.ndarray) -> np.ndarray:
        """float32 [new samples], with frames [n, bands] more."""
        ...

    def finish(self, samples: int | None = None) -> np.ndarray:
        """The rest of a sound of `samples` in all."""
        ...


class NeuralStream:
    """What a vocoder makes of the whole spectrogram, chunk by chunk.

    Args:
      vocoder: a trained one.
      frames: at most so many are made into sound at a time; more are made in turn.
    """

    def __init__(self, vocoder: NeuralVocoder, frames: int):
        self._vocoder = vocoder
        before, after = vocoder.generator.receptive_field()
        self._window = SlidingWindow(before, after, frames)
        self._last: np.ndarray | None = None
        self._frames, self._made = 0, 0

    def feed(self, mel: np.ndarray) -> np.ndarray:
        """See `SoundStream`."""
        if len(mel) and mel.shape[1] != self._vocoder.bands:
            raise UserError(
                f"frames of {mel.shape[1]} bands, but the vocoder reads {self._vocoder.bands}"
            )
        self._frames += len(mel)
        self._last = mel[-1:] if len(mel) else self._last
        return self._sound(self._window.feed(mel.astype(np.float32)))

    def finish(self, samples: int | None = None) -> np.ndarray:
        """See `SoundStream`."""
        if self._last is None:
            return np.zeros(0, np.float32)
        samples = checked_samples(self._frames, samples)
        before = self._made
        # The last frame twice, as for the whole: all of its hop is made, of which a part is wanted.
        rest = [self._sound(self._window.feed(self._last)), self._sound(self._window.finish())]
        return np.concatenate(rest)[: samples - before]

    def _sound(self, views) -> np.ndarray:
        parts = [np.zeros(0, np.float32), *map(self._hops, views)]
        wave = np.concatenate(parts)
        self._made += len(wave)
        return wave

    def _hops(self, view: View) -> np.ndarray:
        known = len(view.steps) if view.known is None else view.known
        wave = self._vocoder.made(view.steps[None], np.array([known], np.int32))[0]
        return wave[view.first * HOP : (view.first + view.new) * HOP]


class GriffinLimStream:
    """Griffin-Lim in blocks, by the idea of RTISI-LA (Zhu, Beauregard and Wyse 2007).

    A block is the new frames and `ahead` later ones. Its phases are iterated while what earlier frames
    added to its first samples stands; then the new frames are added for good, and the later ones begin
    the next block with the phases that they have. Every sample is a sum of overlapping windows, at the
    borders of blocks as elsewhere.

    Args:
      ahead: frames.
      iterations: for every block.
      seed: of the phases that frames begin with.
    """

    def __init__(self, *, ahead: int = AHEAD, iterations: int = ITERATIONS, seed: int = 0):
        if ahead < 0 or iterations < 0:
            raise UserError(f"ahead={ahead}, iterations={iterations}: must be 0 or more")
        self._ahead, self._iterations = ahead, iterations
        self._rng = np.random.default_rng(seed)
        self._window = np.hanning(WINDOW + 1)[:-1]
        self._sizes = np.zeros((0, _HALF + 1))  # magnitudes of the frames that are not added yet
        self._phases = np.zeros((0, _HALF + 1), complex)  # of modulus 1
        self._tail = np.zeros((2, _TAIL))  # what added frames give later samples: sound, weight
        self._added, self._made = 0, 0  # frames, samples

    def feed(self, mel: np.ndarray) -> np.ndarray:
        """See `SoundStream`."""
        if len(mel):
            new = np.sqrt(power_spectrum(np.asarray(mel, np.float64))).T
            turns = np.exp(2j * np.pi * self._rng.random(new.shape))
            self._sizes = np.concatenate([self._sizes, new])
            self._phases = np.concatenate([self._phases, turns])
        return self._add(len(self._sizes) - self._ahead, None)

    def finish(self, samples: int | None = None) -> np.ndarray:
        """See `SoundStream`."""
        frames = self._added + len(self._sizes)
        if not frames:
            return np.zeros(0, np.float32)
        return self._add(len(self._sizes), checked_samples(frames, samples))

    def _add(self, count: int, end: int | None) -> np.ndarray:
        """Adds the first `count` of the waiting frames; `end`: samples of the sound, where known."""
        if count < 1:
            count = 0
        if not count and end is None:
            return np.zeros(0, np.float32)
        begin = self._added * HOP - _HALF  # the first sample under the next frame's window
        places = begin + np.arange(len(self._sizes) * HOP + _TAIL)
        outside = places < 0
        if end is not None:
            outside |= places >= end
        parts = self._iterated(outside) if count else np.zeros((0, WINDOW))
        sound = self._overlap_added(self._tail[0], parts[:count], len(places))
        weight = self._overlap_added(self._tail[1], self._ones(count), len(places))
        self._tail = np.stack([x[count * HOP : count * HOP + _TAIL] for x in (sound, weight)])
        self._sizes, self._phases = self._sizes[count:], self._phases[count:]
        self._added += count
        stop = begin + count * HOP if end is None else end
        first, last = self._made - begin, stop - begin
        self._made = max(self._made, stop)
        wave = sound[first:last] / np.maximum(weight[first:last], 1e-8)
        return np.clip(wave, -1.0, 1.0).astype(np.float32)

    def _iterated(self, outside: np.ndarray) -> np.ndarray:
        """[frames, WINDOW]: the waiting frames' sounds after the iterations; keeps their phases."""
        before, length = np.zeros_like(self._phases), len(outside)
        weight = self._overlap_added(self._tail[1], self._ones(len(self._sizes)), length)
        share = np.where(outside, 0.0, 1 / np.maximum(weight, 1e-8))
        for _ in range(self._iterations):
            wave = share * self._overlap_added(self._tail[0], self._parts(), length)
            seen = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * self._window
            now = scipy.fft.rfft(seen)
            turned = now - MOMENTUM / (1 + MOMENTUM) * before
            self._phases, before = turned / np.maximum(np.abs(turned), 1e-16), now
        return self._parts()

    def _parts(self) -> np.ndarray:
        return scipy.fft.irfft(self._sizes * self._phases, WINDOW)

    def _ones(self, count: int) -> np.ndarray:
        """[count, WINDOW], which weighted are the weights' squares."""
        return np.broadcast_to(self._window, (count, WINDOW))

    def _overlap_added(self, tail: np.ndarray, parts: np.ndarray, length: int) -> np.ndarray:
        """[length]: what was added before, and parts [n, WINDOW] under the window, HOP apart."""
        hops = -(-WINDOW // HOP)
        total = np.zeros((-(-length // HOP) + hops, HOP))
        total.reshape(-1)[:_TAIL] = tail
        seen = np.pad(parts * self._window, ((0, 0), (0, hops * HOP - WINDOW)))
        for i in range(hops):
            total[i : i + len(parts)] += seen[:, i * HOP : (i + 1) * HOP]
        return total.reshape(-1)[:length]
