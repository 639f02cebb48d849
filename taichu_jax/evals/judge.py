"""A run that was trained to match pictures, words and voices, asked about what other runs generate.

It is another run than the one that is judged: a model's own encoders would favour what its own decoders
like to make. Pictures and sounds reach it as files would: pictures as pixels, voices as samples that are
trimmed, cut, analysed and normalised as recordings are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from taichu_jax.data import audio
from taichu_jax.data.parts import AudioPart, ImagePart
from taichu_jax.errors import UserError
from taichu_jax.evals.features import collect, jitted
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.training.run import Run

ROWS = 32  # that a network reads at a time
QUIET = 1e-4  # a sound with a lower peak is silence, as when files are decoded
_MAKE = "python launch/train.py --config configs/multimodal/judge_stamps.py trains one"


class Items(NamedTuple):
    """The real examples of a split.

    Attributes:
      keys: (record's number, language) of each.
      fields: `concept`, `lang`, `text`, `has_text`, array [N, ...] each.
      embeddings: modality -> float32 [N, E] of norm 1.
    """

    keys: list[tuple[int, str]]
    fields: dict[str, np.ndarray]
    embeddings: dict[str, np.ndarray]


class Judge:
    """Embeddings of real items and of what was made.

    Args:
      run: an open run with the objective ContrastiveAlignment over text, image and audio.

    Raises:
      UserError: the run has no such objective.
    """

    def __init__(self, run: Any):
        found = [
            objective
            for objective in run.experiment.objectives.values()
            if isinstance(objective, ContrastiveAlignment)
            and set(objective.modalities) == set(MODALITIES)
        ]
        if not found:
            kinds = ", ".join(type(o).__name__ for o in run.experiment.objectives.values())
            raise UserError(
                f"{run.path}: cannot judge; it needs ContrastiveAlignment over "
                f"{', '.join(MODALITIES)}, and has {kinds}"
            )
        self.run, self._encoders = run, found[0].encoders
        self.stream = run.experiment.streams[found[0].source]
        parts = self.stream.parts(run.tokenizer)
        self._voice = next(part for part in parts if isinstance(part, AudioPart))
        self._size = next(part for part in parts if isinstance(part, ImagePart)).size
        self._embed = {name: jitted(run, self._embedder(name)) for name in MODALITIES}

    @classmethod
    def open(cls, folder: str, judged: Any) -> Judge:
        """The judge in a run's folder, which reads the data of the run that it judges.

        Raises:
          UserError: there is no judge, or it is the judged run itself.
        """
        if Path(folder).resolve() == Path(judged.path).resolve():
            raise UserError(f"judge={folder!r}: is the judged run itself; name another run")
        try:
            run = Run.open(folder)
        except UserError as error:
            raise UserError(f"judge={folder!r}: {error}; {_MAKE}") from error
        run.config.data.dir = judged.config.data.dir
        return cls(run)

    def items(self, split: str, languages: tuple[str, ...]) -> Items:
        """Everything in a split that has a picture, words and a voice."""
        stream = dataclasses.replace(self.stream, split=split, languages=languages)

        def embed(nets, batch):
            return {name: self._embedder(name)(nets, batch) for name in MODALITIES}

        fields, embeddings = collect(
            self.run,
            stream,
            embed,
            fields=("concept", "lang", "text", "has_text", "example"),
            where=lambda batch: np.all([batch[f"has_{name}"] for name in MODALITIES], axis=0),
        )
        if not fields:
            return Items([], {}, {})
        examples = stream.select(stream.source(self.run.config.data.dir))
        keys = [(examples[i][0], examples[i][1]) for i in fields.pop("example")]
        return Items(keys, fields, embeddings)

    def pictures(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [N, E] of pictures float [H, W, 3] in [0, 1] of any one size."""
        seen = np.stack([resized(image, self._size) for image in images])
        batch = {"image": seen, "has_image": np.ones(len(seen), bool)}
        return in_groups(self._embed["image"], batch)

    def voices(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [N, E] of sounds float [samples]; zeros for silence, which ties with everything."""
        frames = self._voice.samples // audio.HOP
        batch = {
            "mel": np.zeros((len(waves), frames, self._voice.bands), np.float32),
            "mel_lengths": np.ones(len(waves), np.int32),
            "has_audio": np.zeros(len(waves), bool),
        }
        for row, wave in enumerate(waves):
            if (mel := self._heard(wave)) is not None:
                batch["mel"][row, : len(mel)], batch["mel_lengths"][row] = mel, len(mel)
                batch["has_audio"][row] = True
        return in_groups(self._embed["audio"], batch) * batch["has_audio"][:, None]

    def _heard(self, wave: np.ndarray) -> np.ndarray | None:
        if silent(wave):
            return None
        wave = audio.trim_silence(wave) if self._voice.trim else wave
        return self._voice.values(wave[: self._voice.samples])

    def _embedder(self, name: str) -> Callable:
        def embed(nets, batch):
            encoded = self._encoders.encode(nets, batch, modalities=(name,))
            return self._encoders.embed(nets, name, encoded[name])

        return embed


def silent(wave: np.ndarray) -> bool:
    """Whether there is nothing to be heard."""
    return len(wave) < audio.HOP or float(np.abs(wave).max()) < QUIET


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size, 3] of a square picture, in the way that streams make theirs smaller."""
    image = np.asarray(image, np.float32)
    if len(image) == size:
        return image
    how = PIL.Image.Resampling.BILINEAR
    colours = [PIL.Image.fromarray(image[..., c]).resize((size, size), how) for c in range(3)]
    return np.stack([np.asarray(colour) for colour in colours], axis=-1)


def in_groups(compute: Callable, batch: Mapping[str, np.ndarray], rows: int = ROWS) -> Any:
    """`compute` of the rows of a batch in groups of one size, so that one program serves all.

    The last group is filled up with its last row, and its results are cut.
    """
    import jax

    count, parts = len(next(iter(batch.values()))), []
    for start in range(0, count, rows):
        index = np.minimum(np.arange(start, start + rows), count - 1)
        made = jax.device_get(compute({name: value[index] for name, value in batch.items()}))
        parts.append(jax.tree.map(lambda x, n=count - start: np.asarray(x)[:n], made))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
