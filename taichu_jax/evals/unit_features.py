"""What recordings are clustered by: MFCCs, or a layer of a trained network.

Features are called with recordings, float32 [samples] at 16 kHz, and give float32 [frames, D] for each.
They have `rate`, frames per second: frame k belongs to sample k * 16,000 / rate; and `facts`, JSON
values that say what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.audio import HOP, RATE, log_mel
from taichu_jax.data.streams import Recordings
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.models.layers import Encoded
from taichu_jax.training.run import Run

COEFFICIENTS, BANDS, REACH = 13, 23, 5  # of Kaldi, on which HuBERT's first iteration rests
_ROWS = 16  # recordings, or pieces of them, that a network reads at a time


class MFCC:
    """13 cepstral coefficients with first and second differences, 39 numbers 100 times a second.

    As in HuBERT's first iteration (arXiv 2106.07447, section IV-B): 25 ms windows every 10 ms, 23 mel
    bands, differences over 5 frames with the ends repeated. Windows are centred on their samples here,
    so that frame k is frame k of the log-mel spectrogram; Kaldi's begin there.

    Args:
      normalised: subtracts each number's mean over the recording and divides by its deviation (cepstral
        mean and variance normalisation), so that units tell sounds more than voices and microphones.
    """

    rate = RATE / HOP

    def __init__(self, normalised: bool = False) -> None:
        self.normalised = normalised
        self.facts: dict[str, Any] = {"features": "mfcc_cmvn" if normalised else "mfcc"}

    def __call__(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        import librosa

        found = [_with_differences(librosa, wave) for wave in waves]
        if not self.normalised:
            return found
        from sklearn.preprocessing import StandardScaler

        return [StandardScaler().fit_transform(numbers) for numbers in found]


def _with_differences(librosa: Any, wave: np.ndarray) -> np.ndarray:
    static = librosa.feature.mfcc(S=log_mel(wave, BANDS).T, n_mfcc=COEFFICIENTS)
    first = librosa.feature.delta(static, width=REACH, mode="nearest")
    second = librosa.feature.delta(first, width=REACH, mode="nearest")
    return np.concatenate([static, first, second]).T.astype(np.float32)


class HiddenStates:
    """The states behind one block of a run's speech encoder, nothing being hidden or augmented.

    A recording that is longer than what the network was trained on is read in pieces of that length;
    the last piece ends with the recording, so that none is short, and of it only what is new is taken.

    Args:
      run_dir: the run's folder.
      encoder: the network's name.
      layer: 0 for the input of the first block, k for the output of block k.
      stream: which of the run's streams says how the network wants its recordings; '' if there is one.

    Raises:
      UserError: no such run, network, layer or stream.
    """

    def __init__(self, run_dir: str | Path, encoder: str, layer: int, stream: str = ""):
        run = Run.open(run_dir)
        where = f"--run {run_dir}"
        if encoder not in run.experiment.networks:
            known = choices(encoder, run.experiment.networks)
            raise UserError(f"{where}: has no network {encoder!r}; {known}")
        part: Any = the_recordings(run.experiment.streams, stream, where).parts(None)[0]
        self._part = part
        size = part.samples if part.form == "waveform" else part.samples // HOP
        extra = () if part.form == "waveform" else (part.bands,)
        self._shape = (_ROWS, size, *extra)

        inputs = (np.zeros(self._shape, np.float32), np.zeros(_ROWS, np.int32))
        encoded = jax.eval_shape(lambda *args: run.nets()(encoder, *args), *inputs)
        if not isinstance(encoded, Encoded):
            raise UserError(f"{where}: network {encoder!r} does not encode recordings")
        if not 0 <= layer < len(encoded.layers):
            raise UserError(
                f"--layer {layer}: network {encoder!r} of {run_dir} has layers 0 to "
                f"{len(encoded.layers) - 1}"
            )
        self.rate = float(encoded.rate)
        self._hop = round(RATE / self.rate)
        if abs(self._hop * self.rate - RATE) > 1e-6 * RATE:
            raise UserError(f"{where}: {self.rate} tokens per second do not fall on samples")
        self._tokens = encoded.tokens.shape[1]

        def states(nets, field, lengths):
            encoded = nets(encoder, field, lengths)
            return encoded.layers[layer], encoded.mask.sum(-1)

        self._states = jitted(run, states)
        self.facts = {
            "features": "hidden states",
            "run": str(run_dir),
            "step": int(run.step),
            "encoder": encoder,
            "layer": layer,
        }

    def __call__(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        pieces = [(i, start) for i, wave in enumerate(waves) for start in self._starts(len(wave))]
        found: list[list[np.ndarray]] = [[] for _ in waves]
        for first in range(0, len(pieces), _ROWS):
            some = pieces[first : first + _ROWS]
            cut = [waves[i][start : start + self._part.samples] for i, start in some]
            for (i, start), states in zip(some, self._read(cut), strict=True):
                known = sum(map(len, found[i]))
                found[i].append(states[max(0, known - start // self._hop) :])
        return [np.concatenate(parts) for parts in found]

    def _starts(self, samples: int) -> list[int]:
        """Where pieces of a recording start: at tokens, each behind the last token of the one before."""
        rest = max(0, samples - self._part.samples)
        last = -(-rest // self._hop) * self._hop
        return [*range(0, last, self._tokens * self._hop), last]

    def _read(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        field, lengths = np.zeros(self._shape, np.float32), np.zeros(_ROWS, np.int32)
        for row, wave in enumerate(waves):
            values = self._part.values(wave)
            field[row, : len(values)], lengths[row] = values, len(values)
        states, counts = jax.device_get(self._states(field, lengths))
        pairs = zip(states, counts, strict=True)
        return [np.asarray(x[:n], np.float32) for x, n in pairs][: len(waves)]


def the_recordings(streams: Any, name: str, where: str) -> Recordings:
    """The stream of recordings of that name, or the only one.

    Raises:
      UserError: there is none, or more than one.
    """
    voiced = {key: s for key, s in streams.items() if isinstance(s, Recordings)}
    if name and name in voiced:
        return voiced[name]
    if name or len(voiced) != 1:
        wrong = (
            f"no stream of recordings {name!r}" if name else f"{len(voiced)} streams of recordings"
        )
        raise UserError(f"{where}: {wrong}, name one with --stream; {choices(name, voiced)}")
    return next(iter(voiced.values()))
