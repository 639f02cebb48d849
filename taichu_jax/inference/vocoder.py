"""From log-mel frames back to sound: Griffin-Lim, or the generator of a trained run.

A spectrogram float32 [F, bands] is that of `data/audio.py`: frame t is centred on sample t * 160, so F
frames span (F - 1) * 160 samples, and belong to any sound of up to 159 more. Sounds are float32
[samples] at 16 kHz in [-1, 1].
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.audio import FLOOR, HOP, WINDOW
from taichu_jax.errors import UserError
from taichu_jax.models.hifi_gan import HifiGanGenerator
from taichu_jax.ops.speech_features import mel_filters
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.run import Run

UPDATES = 30  # of the power spectrum, after which its mel bands are right within a hundredth
ITERATIONS = 32  # of Griffin-Lim, librosa's default
GROUP = 64  # frames: lengths are rounded up to a multiple, each of which is compiled once
_ROWS = 8  # spectrograms that a generator reads at a time


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What `data.audio.normalise_mel` removed from a recording: float32 [bands] each."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, mel: np.ndarray) -> Statistics:
        """Those of a spectrogram before it is normalised."""
        return cls(mel.mean(axis=0), np.sqrt(mel.var(axis=0) + 1e-5))

    def undo(self, mel: np.ndarray) -> np.ndarray:
        """The spectrogram before it was normalised."""
        return mel * self.deviation + self.mean


# ------------------------------------------------------------------------------- Griffin-Lim


def power_spectrum(mel: np.ndarray) -> np.ndarray:
    """[WINDOW // 2 + 1, F]: a power spectrum with the mel bands of `mel`; what is at the floor is 0.

    Bands overlap and the lowest are narrower than a bin, so the pseudo-inverse has negative powers, and
    without them bands that are wrong by a third. The updates of Richardson (1972) and Lucy (1974) keep
    powers positive and lower the divergence between the bands, which weighs ratios as the logarithm does:

        P <- P * A^T (M / A P) / A^T 1
    """
    filters = mel_filters(mel.shape[1], WINDOW)
    wanted = np.where(mel > np.log(FLOOR) + 1e-3, np.exp(mel), 0.0).T
    reached = np.maximum(filters.sum(0)[:, None], 1e-12)
    # Two pairs of 80 bands see the same bins: what tells them apart is rounding. And an update is a
    # factor, so what starts near 0 would stay there.
    even = (filters.T @ (wanted / filters.sum(1)[:, None])) / reached
    power = np.maximum(_inverse(mel.shape[1]) @ wanted, 0.1 * even)
    for _ in range(UPDATES):
        ratio = wanted / np.maximum(filters @ power, 1e-3 * FLOOR)
        power *= (filters.T @ ratio) / reached
    return power


@functools.cache
def _inverse(bands: int) -> np.ndarray:
    """[WINDOW // 2 + 1, bands]: of the mel filters."""
    return np.linalg.pinv(mel_filters(bands, WINDOW), rcond=1e-3)


def griffin_lim(
    mel: np.ndarray,
    samples: int | None = None,
    *,
    statistics: Statistics | None = None,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> np.ndarray:
    """A sound with a given spectrogram (Griffin and Lim 1984; librosa's fast form).

    Args:
      mel: float [F, bands], as `data.audio.log_mel` gives it, or normalised with `statistics`.
      samples: length of the result, from (F - 1) * 160 (the default) to 159 more.
      iterations: 0 leaves the phases random.
      seed: of the first phases.

    Raises:
      UserError: a length that does not belong to so many frames.
    """
    import librosa

    samples = checked_samples(len(mel), samples)
    mel = mel if statistics is None else statistics.undo(mel)
    wave = librosa.griffinlim(
        np.sqrt(power_spectrum(np.asarray(mel, np.float64))),
        n_iter=iterations,
        hop_length=HOP,
        win_length=WINDOW,
        n_fft=WINDOW,
        pad_mode="constant",
        random_state=seed,
    )
    wave = np.pad(wave, (0, max(0, samples - len(wave))))[:samples]
    return np.clip(wave, -1.0, 1.0).astype(np.float32)


# ---------------------------------------------------------------------------- trained vocoder


class NeuralVocoder:
    """The generator of a run that trained a vocoder.

    Args:
      run: an open run.
      network: the generator's name.

    Attributes:
      generator: the network.
      bands: of the spectrograms that it reads.

    Raises:
      UserError: the run has no such network, or it makes no sound.
    """

    def __init__(self, run: Any, network: str = "vocoder"):
        networks = run.experiment.networks
        if network not in networks:
            raise UserError(f"{run.path}: has no network {network!r}; {choices(network, networks)}")
        if not isinstance(networks[network], HifiGanGenerator):
            kind = type(networks[network]).__name__
            raise UserError(f"{run.path}: network {network!r} is a {kind}, which makes no sound")
        self._params, self.generator = run.params[network], networks[network]
        self.bands: int = self._params["first"]["kernel"].shape[1]

        @jax.jit
        def made(params, mel, lengths):
            nets = BoundNets(networks, {network: params}, owner="vocoder")
            return nets(network, mel, lengths)

        self._made = made

    @classmethod
    def open(cls, run_dir: str | Path, network: str = "vocoder") -> NeuralVocoder:
        """Reads the newest checkpoint of a run's folder."""
        return cls(Run.open(run_dir), network)

    def __call__(
        self, mels: Sequence[np.ndarray], samples: Sequence[int | None] | None = None
    ) -> list[np.ndarray]:
        """The sound of every spectrogram [F, bands], as `data.audio.log_mel` gives it.

        Args:
          samples: lengths of the sounds, each from (F - 1) * 160 (the default) to 159 more.

        Raises:
          UserError: a length that does not belong to so many frames.
        """
        lengths = [None] * len(mels) if samples is None else samples
        wanted = [checked_samples(len(m), n) for m, n in zip(mels, lengths, strict=True)]
        waves: list[np.ndarray] = []
        for start in range(0, len(mels), _ROWS):
            waves += self._group(mels[start : start + _ROWS])
        return [wave[:n] for wave, n in zip(waves, wanted, strict=True)]

    def made(self, mel: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float32 [B, (F - 1) * 160]: the generator's sounds of frames [B, F, bands] as they stand."""
        return np.asarray(self._made(self._params, jnp.asarray(mel), lengths), np.float32)

    def _group(self, mels: Sequence[np.ndarray]) -> list[np.ndarray]:
        # The last frame twice: its whole hop is made, of which a caller may want a part.
        longest = max(map(len, mels)) + 1
        size = -(-longest // GROUP) * GROUP
        field = np.zeros((_ROWS, size, mels[0].shape[1]), np.float32)
        lengths = np.zeros(_ROWS, np.int32)
        for row, mel in enumerate(mels):
            field[row, : len(mel)], field[row, len(mel)] = mel, mel[-1]
            lengths[row] = len(mel) + 1
        made = self.made(field, lengths)
        return [wave[: len(mel) * HOP] for wave, mel in zip(made, mels, strict=False)]


def checked_samples(frames: int, samples: int | None) -> int:
    """The length of a sound of `frames` frames; checked."""
    least = (frames - 1) * HOP
    if frames < 1:
        raise UserError("a spectrogram without frames has no sound")
    if samples is None:
        return least
    if not least <= samples < least + HOP:
        raise UserError(
            f"samples={samples}: {frames} frames belong to {least} to {least + HOP - 1} samples"
        )
    return samples
