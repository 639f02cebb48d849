"""Held-out recordings through a codec, a vocoder or both, and how far from themselves they come out.

Two distances (spectral_distance.py): of log-mel spectrograms, in nepers of power, and of log spectra,
in dB. Sounds are analysed anew; codes are judged by the spectrogram that is decoded from them, too.
Beside them stand the recording's own mean spectrum (a codec's simplest guess), Griffin-Lim from the
true spectrogram (what is lost without any codec) and the same with random phases.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.audio import HOP, RATE, log_mel
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted, thinned
from taichu_jax.evals.media import Folder, Originals
from taichu_jax.evals.spectral_distance import (
    log_spectral_distance,
    mel_distance,
    wave_mel_distance,
)
from taichu_jax.inference.vocoder import NeuralVocoder, griffin_lim
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.speech import FRAME_RATE

ORIGINAL, MEAN = "the recording", "its mean spectrum"
GRIFFIN, RANDOM = "Griffin-Lim", "random phases"
_ROWS = 8  # recordings that a codec reads at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resynthesis:
    """See the module's docstring.

    Attributes:
      stream: whose recordings are taken, cut to its `seconds`; its split is replaced.
      codec: a `MelTokeniser` of the run, for raw spectrograms; empty for none.
      vocoder: a generator of the run, or, with `vocoder_run`, of another; empty for none. What is
        decoded from codes becomes sound by it, or by Griffin-Lim where there is none.
      vocoder_run: a run's folder; empty for the run that is evaluated.
      limit: recordings that are scored, evenly spread.
      examples: of them shown in the report.
    """

    stream: Any
    codec: str = ""
    vocoder: str = ""
    vocoder_run: str = ""
    split: str = "test"
    limit: int = 60
    examples: int = 6

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Distances by way of making; sounds and spectrograms go to `out_dir`."""
        self._check(run)
        stream = thinned(dataclasses.replace(self.stream, split=self.split), self.limit)
        originals = Originals(run, stream)
        count = len(stream.select(stream.source(run.config.data.dir)))
        size = round(stream.seconds * RATE)
        waves = [originals.wave(i)[:size] for i in range(count)]
        if not waves:
            raise UserError(f"split={self.split!r}: the stream has no recordings there")
        bands = stream.mel_bands
        mels = [log_mel(wave, bands) for wave in waves]
        decoded = self._decoded(run, mels, size)
        sounds = self._sounds(run, waves, mels, decoded)
        rows = [_row(way, waves, made, bands) for way, made in sounds.items()]
        bits = None
        if decoded:
            means = [np.broadcast_to(mel.mean(0), mel.shape) for mel in mels]
            spectra = decoded | {MEAN: means}
            rows += [_decoded_row(way, mels, drawn) for way, drawn in spectra.items()]
            codec = run.experiment.networks[self.codec]
            rate = codec.quantiser.stages * FRAME_RATE / codec.stride
            bits = rate * math.log2(codec.quantiser.codes)
        folder, shown = Folder(out_dir), []
        for i in np.linspace(0, count - 1, min(self.examples, count)).astype(int):
            low, high = np.percentile(mels[i], [2, 99.5])
            heard = {ORIGINAL: waves[i]} | {way: made[i] for way, made in sounds.items()}
            shown.append(
                {
                    "words": originals.text(i),
                    "sounds": [
                        {
                            "way": way,
                            "audio": folder.clip(wave),
                            "picture": folder.spectrogram(log_mel(wave, bands), low, high),
                        }
                        for way, wave in heard.items()
                    ],
                }
            )
        return {
            "split": self.split,
            "recordings": count,
            "rows": rows,
            "bits_per_second": bits,
            "examples": shown,
        }

    def _check(self, run) -> None:
        networks = run.experiment.networks
        if not self.codec and not self.vocoder:
            raise UserError("Resynthesis: codec='' and vocoder='', there is nothing to evaluate")
        if self.codec and not isinstance(networks.get(self.codec), MelTokeniser):
            kinds = [name for name, net in networks.items() if isinstance(net, MelTokeniser)]
            raise UserError(
                f"codec={self.codec!r}: no such MelTokeniser; {choices(self.codec, kinds)}"
            )

    def _decoded(self, run, mels, size: int) -> dict[str, list[np.ndarray]]:
        """Spectrograms from the codes of the first stage, of the first two, ... of all."""
        if not self.codec:
            return {}
        stages = run.experiment.networks[self.codec].quantiser.stages

        def through(nets, mel, lengths):
            codes = nets(self.codec, mel, lengths, method="codes")
            return [
                nets(self.codec, codes[..., : s + 1], lengths, method="decode")
                for s in range(stages)
            ]

        compute, shape = jitted(run, through), (_ROWS, 1 + size // HOP, mels[0].shape[1])
        found: list[list[np.ndarray]] = [[] for _ in range(stages)]
        for start in range(0, len(mels), _ROWS):
            part = mels[start : start + _ROWS]
            field, lengths = np.zeros(shape, np.float32), np.zeros(_ROWS, np.int32)
            for row, mel in enumerate(part):
                field[row, : len(mel)], lengths[row] = mel, len(mel)
            for s, made in enumerate(compute(jnp.asarray(field), jnp.asarray(lengths))):
                pairs = zip(np.asarray(made, np.float32), part, strict=False)
                found[s] += [drawn[: len(mel)] for drawn, mel in pairs]
        return {_codes(s + 1, stages): spectra for s, spectra in enumerate(found)}

    def _sounds(self, run, waves, mels, decoded) -> dict[str, list[np.ndarray]]:
        sizes = [len(wave) for wave in waves]
        pairs = list(zip(mels, sizes, strict=True))
        made = {GRIFFIN: [griffin_lim(mel, n) for mel, n in pairs]}
        vocoder = None
        if self.vocoder:
            source = NeuralVocoder.open if self.vocoder_run else NeuralVocoder
            vocoder = source(self.vocoder_run or run, self.vocoder)
            made["vocoder"] = vocoder(mels, sizes)
        if decoded:
            way, spectra = list(decoded.items())[-1]
            if vocoder is None:
                waves = [griffin_lim(m, n) for m, n in zip(spectra, sizes, strict=True)]
                made[f"{way}, Griffin-Lim"] = waves
            else:
                made[f"{way}, vocoder"] = vocoder(spectra, sizes)
        made[RANDOM] = [griffin_lim(mel, n, iterations=0) for mel, n in pairs]
        return made


def _codes(stages: int, of: int) -> str:
    return f"{stages} of {of} codes"


def _row(way: str, waves, made, bands: int) -> dict[str, Any]:
    """Mean distances of sounds from the recordings."""
    pairs = list(zip(waves, made, strict=True))
    return {
        "way": way,
        "form": "sound",
        "mel": float(np.mean([wave_mel_distance(x, y, bands) for x, y in pairs])),
        "decibels": float(np.mean([log_spectral_distance(x, y) for x, y in pairs])),
    }


def _decoded_row(way: str, mels, spectra) -> dict[str, Any]:
    """Mean distance of decoded spectrograms from the recordings'."""
    distances = [mel_distance(x, y) for x, y in zip(mels, spectra, strict=True)]
    return {"way": way, "form": "spectrogram", "mel": float(np.mean(distances)), "decibels": None}
