"""Pictures and voices that a run makes from other modalities, by way of a tokeniser's codes.

What is given is what the batch says is there: `has_text`, `has_image` and `has_audio` are switched, as
the objectives do it, so one program serves every set of inputs. Voices are made into sound by Griffin-Lim
or by a trained vocoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.audio import log_mel
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.evals.judge import in_groups
from taichu_jax.inference.codes import longest, write_picture_codes, write_voice_codes
from taichu_jax.inference.decoding import Sampling
from taichu_jax.inference.vocoder import NeuralVocoder, griffin_lim
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.multimodal.code_reconstruction import CodeReconstruction
from taichu_jax.objectives.multimodal.opt_audio_reconstruction import OPTAudioReconstruction
from taichu_jax.objectives.multimodal.opt_image_reconstruction import OPTImageReconstruction

OBJECTIVES = {"image": OPTImageReconstruction, "audio": OPTAudioReconstruction}
INPUTS = (
    *("text", "text_mask", "image", "mel", "mel_lengths", "lang"),
    *(f"has_{name}" for name in MODALITIES),
)
SPEECH_ROWS = 16  # spectrograms that a tokeniser reads at a time


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made of N rows.

    Attributes:
      codes: int32 [...] of each row.
      things: a picture float32 [H, W, 3] in [0, 1], or a sound float32 [samples], of each row.
    """

    codes: list[np.ndarray]
    things: list[np.ndarray]


class _Maker:
    """A decoder of a run with its tokeniser."""

    def __init__(self, run: Any, objective: CodeReconstruction, sampling: Sampling):
        self.run, self.objective, self.sampling = run, objective, sampling
        self.decoder = run.experiment.networks[objective.decoder]
        self.tokeniser = run.experiment.networks[objective.tokeniser]

    def _memory(self, nets, batch):
        """(states of what the batch says is there, the languages if the decoder is told)."""
        encoders = self.objective.encoders
        memory = encoders.fuse(nets, encoders.encode(nets, batch)).replace(layers=())
        return memory, batch["lang"] if self.decoder.languages else None

    def _given(self, fields, inputs, numbers) -> dict[str, np.ndarray]:
        there = {f"has_{name}": fields[f"has_{name}"] & (name in inputs) for name in MODALITIES}
        return {name: fields[name] for name in INPUTS} | there | {"number": np.asarray(numbers)}


class PictureMaker(_Maker):
    """Draws pictures."""

    def __init__(self, run: Any, objective: CodeReconstruction, sampling: Sampling):
        super().__init__(run, objective, sampling)
        self._write = jitted(run, self._written)
        self._through = jitted(run, self._drawn_again)

    def make(
        self,
        fields: Mapping[str, np.ndarray],
        inputs: Sequence[str],
        key: jax.Array,
        numbers: Sequence[int],
    ) -> Made:
        """A picture from every row of a stream's fields [N, ...].

        Args:
          inputs: modalities that it is drawn from.
          numbers: int [N], what a row's randomness depends on besides the key.
        """
        batch = self._given(fields, inputs, numbers)
        codes, drawn = in_groups(lambda rows: self._write(rows, key, self.sampling), batch)
        return Made(list(codes), list(drawn))

    def again(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Pictures [H, W, 3] as codes and back."""
        return list(in_groups(self._through, {"image": np.stack(images)}))

    def _written(self, nets, batch, key, sampling):
        memory, language = self._memory(nets, batch)
        side = self.run.experiment.streams[self.objective.source].image_size
        grid = (side // self.tokeniser.shrink,) * 2
        codes = write_picture_codes(
            nets,
            self.objective.decoder,
            memory,
            grid,
            sampling=sampling,
            key=key,
            rows=batch["number"],
            language=language,
        )
        return codes, nets(self.objective.tokeniser, codes, method="decode")

    def _drawn_again(self, nets, batch):
        codes = nets(self.objective.tokeniser, batch["image"], method="codes")
        return nets(self.objective.tokeniser, codes, method="decode")


class VoiceMaker(_Maker):
    """Speaks.

    Args:
      vocoder: makes sound of the spectrograms; None for Griffin-Lim.
    """

    def __init__(
        self,
        run: Any,
        objective: CodeReconstruction,
        sampling: Sampling,
        vocoder: NeuralVocoder | None = None,
    ):
        super().__init__(run, objective, sampling)
        self._vocoder = vocoder
        self._write = jitted(run, self._written)
        self._through = jitted(run, self._spoken_again)

    def make(
        self,
        fields: Mapping[str, np.ndarray],
        inputs: Sequence[str],
        key: jax.Array,
        numbers: Sequence[int],
    ) -> Made:
        """A voice from every row; arguments as of `PictureMaker.make`."""
        batch = self._given(fields, inputs, numbers)
        codes, lengths, mels = in_groups(lambda rows: self._write(rows, key, self.sampling), batch)
        frames = lengths * self.tokeniser.stride
        spectra = [mel[:n] for mel, n in zip(mels, frames, strict=True)]
        return Made([row[:n] for row, n in zip(codes, lengths, strict=True)], self.sound(spectra))

    def again(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Sounds [samples] as codes and back, by the way that made ones go."""
        spectra = [log_mel(wave, self.tokeniser.bands) for wave in waves]
        batch = {
            "mel": np.zeros((len(waves), max(map(len, spectra)), self.tokeniser.bands), np.float32),
            "lengths": np.array([len(mel) for mel in spectra], np.int32),
        }
        for row, mel in zip(batch["mel"], spectra, strict=True):
            row[: len(mel)] = mel
        decoded = in_groups(self._through, batch, SPEECH_ROWS)
        return self.sound([mel[:n] for mel, n in zip(decoded, batch["lengths"], strict=True)])

    def sound(self, mels: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 [160 (F - 1)] of log-mel frames [F, bands] each."""
        real = [mel for mel in mels if len(mel)]
        waves = iter(self._vocoder(real) if self._vocoder else map(griffin_lim, real))
        return [next(waves) if len(mel) else np.zeros(0, np.float32) for mel in mels]

    def _written(self, nets, batch, key, sampling):
        memory, language = self._memory(nets, batch)
        codes, lengths = write_voice_codes(
            nets,
            self.objective.decoder,
            memory,
            longest(self.decoder),
            sampling=sampling,
            key=key,
            rows=batch["number"],
            language=language,
        )
        frames = lengths * self.tokeniser.stride
        return codes, lengths, nets(self.objective.tokeniser, codes, frames, method="decode")

    def _spoken_again(self, nets, batch):
        codes = nets(self.objective.tokeniser, batch["mel"], batch["lengths"], method="codes")
        return nets(self.objective.tokeniser, codes, batch["lengths"], method="decode")


def objective_of(run: Any, kind: str) -> CodeReconstruction:
    """The objective of a run that makes `kind` ('image' or 'audio').

    Raises:
      UserError: the run learns no such thing.
    """
    cls = OBJECTIVES[kind]
    found = [o for o in run.experiment.objectives.values() if isinstance(o, cls)]
    if not found:
        kinds = {type(o).__name__ for o in run.experiment.objectives.values()}
        raise UserError(
            f"{run.path}: makes no {kind}, for which it needs the objective {cls.__name__}; "
            f"{choices(cls.__name__, kinds)}"
        )
    return found[0]
