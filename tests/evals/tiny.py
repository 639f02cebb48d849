"""A tiny tri-modal run with random weights and a stream of four things in two languages."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import build, spec
from taichu_jax.data.languages import INDEX
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.models.fusion import CrossModalEncoder
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.objectives.multimodal.opt_token_level import OPTTokenLevel
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.training.experiment import defaults
from taichu_jax.training.state import init_params

SIZE, BANDS, FRAMES, LENGTH, THINGS = 16, 80, 32, 12, 6
LANGUAGES = ("fr", "ro")
VOCAB = ByteTokenizer().vocab_size


class Source:
    """Originals of the things, in place of prepared records."""

    def texts(self, row: int) -> dict[str, str]:
        return {lang: f"{lang} {row}" for lang in LANGUAGES}

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        del trim
        rng = np.random.default_rng(100 * row + LANGUAGES.index(lang))
        return (rng.normal(size=5000) * 3000).astype(np.int16)

    def canvas(self, row: int, side: int) -> np.ndarray:
        picture = np.zeros((side, side, 4), np.uint8)
        picture[: side // 2] = [40 * row, 10, 10, 255]
        return picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Things:
    """Every thing in every language, with the interface and fields of `data.streams.Triplets`."""

    dataset: str = "things"
    split: str = "train"
    batch_size: int = 5
    languages: tuple[str, ...] = ()

    def source(self, data_dir: Any) -> Source:
        del data_dir
        return Source()

    def select(self, source: Source) -> list[tuple[int, str]]:
        del source
        return [(row, lang) for lang in self.languages or LANGUAGES for row in range(THINGS)]

    def fields(self) -> dict[str, jax.ShapeDtypeStruct]:
        batch = next(self.epoch(None, ByteTokenizer()))
        return {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items() if k != "valid"}

    def epoch(self, data_dir: Any, tokenizer: ByteTokenizer):
        source = self.source(data_dir)
        examples = list(enumerate(self.select(source)))
        for start in range(0, len(examples), self.batch_size):
            rows = examples[start : start + self.batch_size]
            padded = rows + [rows[-1]] * (self.batch_size - len(rows))
            yield {
                **{k: np.stack(v) for k, v in self._rows(source, padded, tokenizer).items()},
                "valid": np.arange(self.batch_size) < len(rows),
            }

    def _rows(self, source, rows, tokenizer):
        batch: dict[str, list] = {}
        for example, (row, lang) in rows:
            rng = np.random.default_rng([row, LANGUAGES.index(lang)])
            ids, mask = tokenizer.encode(source.texts(row)[lang], LENGTH)
            for name, value in {
                "concept": np.int32(row),
                "category": np.int32(row % 2),
                "lang": np.int32(INDEX[lang]),
                "example": np.int32(example),
                "text": ids,
                "text_mask": mask,
                "has_text": np.True_,
                "image": np.full((SIZE, SIZE, 3), row / THINGS, np.float32)
                + 0.1 * rng.random((SIZE, SIZE, 3), np.float32),
                "has_image": np.True_,
                "mel": rng.normal(size=(FRAMES, BANDS)).astype(np.float32),
                "mel_lengths": np.int32(FRAMES - row),
                "has_audio": np.True_,
            }.items():
                batch.setdefault(name, []).append(value)
        return batch


_COMMON = {"width": 16, "depth": 1, "heads": 2}
NETWORKS = {
    "text": spec(TextEncoder, vocab_size=VOCAB, length=LENGTH, **_COMMON),
    "image": spec(ViT, size=SIZE, patch=8, **_COMMON),
    "audio": spec(SpeechEncoder, bands=BANDS, frames=FRAMES, **_COMMON),
    "fusion": spec(CrossModalEncoder, lengths=(LENGTH, 4, FRAMES // 4), **_COMMON),
    "text_decoder": spec(TextDecoder, vocab_size=VOCAB, length=LENGTH, **_COMMON),
    "image_decoder": spec(MAEDecoder, width=16, patch=8, patches=4),
    "image_prediction": spec(Projection, features=8 * 8 * 3, hidden=16),
    "audio_prediction": spec(Projection, features=4 * BANDS, hidden=16),
    "scale": spec(LogitScale),
    **{f"{name}_projection": spec(Projection, features=8) for name in ("text", "image", "audio")},
}
OBJECTIVES = {
    "align": spec(ContrastiveAlignment, source="things"),
    "level": spec(OPTModalityLevel, source="things"),
    "token": spec(OPTTokenLevel, source="things", vocab_size=VOCAB, patch=8, stride=4),
    "mae": spec(MaskedAutoencoder, source="things"),
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    networks: Any
    objectives: Any
    streams: Any
    evaluations: Any
    compute_dtype: Any = None


@dataclasses.dataclass(frozen=True)
class Run:
    path: pathlib.Path
    config: Any
    experiment: Experiment
    tokenizer: Any
    params: Any
    step: int = 7


@functools.cache
def _params():
    stream = Things(batch_size=4)
    batch = {k: v for k, v in next(stream.epoch(None, ByteTokenizer())).items() if k != "valid"}
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    modules, objectives = build(NETWORKS), build(OBJECTIVES)
    init = jax.jit(lambda: init_params(modules, objectives, {"things": batch}, 0)[0])
    return modules, objectives, init()


def run(path: pathlib.Path, evaluations: dict[str, Any] | None = None) -> Run:
    """An open run, as `training.run.Run` is."""
    modules, objectives, params = _params()
    config = defaults()
    config.name, config.data.dir = "tiny", str(path / "data")
    experiment = Experiment(modules, objectives, {"things": Things()}, evaluations or {})
    return Run(path, config, experiment, ByteTokenizer(), params)
