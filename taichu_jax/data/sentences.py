"""Text alone: the descriptions of a data set, or the lines of a text file."""

import dataclasses
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taichu_jax.data import batches as engine
from taichu_jax.data.damage import Makes, Report
from taichu_jax.data.items import Damaged
from taichu_jax.data.languages import INDEX, UNKNOWN, known
from taichu_jax.data.parts import Batch, Example, Fields, Part, Rng, Source, TextPart
from taichu_jax.data.records import Entry
from taichu_jax.data.sampler import Draws
from taichu_jax.data.streams import Stream, shapes
from taichu_jax.data.tokenizer import Tokenizer
from taichu_jax.errors import UserError

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentences(Stream):
    """Sentences in all languages; a language's share is count ** language_temperature.

    With `path` they are the non-empty lines of that UTF-8 text file, in the language
    `path_language`, instead of the data set's descriptions.

    With `pack` a row holds as many whole sentences as fit, each [CLS] ... [SEP], and only the
    fields text, text_mask, has_text, text_segments int32 [B, L] (1, 2, ... by sentence, 0 for
    padding: attention must stay within a segment) and text_positions int32 [B, L] (from 0 in each
    sentence). With `consecutive` the sentences of a row follow each other in the source, as the
    lines of a document do; otherwise each is drawn by itself.
    """

    text_length: int = 64  # ids
    language_temperature: float = 0.5
    path: str = ""
    path_language: str = UNKNOWN
    pack: bool = False
    consecutive: bool = False

    def __post_init__(self):
        super().__post_init__()
        known(self.path_language, "path_language")
        if self.consecutive and not self.pack:
            raise UserError("Sentences: consecutive=True needs pack=True")

    def parts(self, tokenizer: Tokenizer | None) -> Sequence[Part]:
        """The modalities of a batch."""
        return [TextPart(self.text_length, tokenizer)]

    def fields(self) -> dict[str, "jax.ShapeDtypeStruct"]:
        """The static shapes of one global batch."""
        if not self.pack:
            return super().fields()
        return shapes(self.batch_size, packed_fields(self.text_length))

    def training(self, filler: engine.Filler, seed: int, rows: Sequence[int]) -> Makes:
        """Random access to the batches of one process."""
        if not self.pack:
            return super().training(filler, seed, rows)
        return Packed(
            filler=filler,
            sampler=self.samplers(filler, seed),
            seed=seed,
            rows=rows,
            augment=self.augment,
            consecutive=self.consecutive,
        )

    def epoch(self, data_dir: str | Path, tokenizer: Tokenizer | None) -> Iterator[Batch]:
        """Every sentence of the split once, in order, last batch padded."""
        if not self.pack:
            return super().epoch(data_dir, tokenizer)
        return packed_epoch(self._filler(data_dir, tokenizer), self.batch_size)

    def select(self, source: Source) -> list[Example]:
        """The texts, by language and record."""
        pairs = [
            (lang, row)
            for row, entry in enumerate(source.entries)
            for lang in entry.texts
            if self._wanted(lang)
        ]
        return [Example(row, lang) for lang, row in sorted(pairs)]

    def source(self, data_dir: str | Path) -> Source:
        """The split's descriptions or the file's lines."""
        if self.path:
            return _lines(self.path, self.path_language)
        return super().source(data_dir)

    def samplers(self, filler: engine.Filler, seed: int) -> engine.SamplerOf:
        """Independent draws."""
        languages = np.array([INDEX[lang] for _, lang in filler.examples])
        return engine.Always(
            Draws(
                languages,
                batch_size=self.batch_size,
                seed=seed,
                temperature=self.language_temperature,
            )
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """Like batches.Training, but with as many whole sentences in a row as fit."""

    filler: engine.Filler
    sampler: engine.SamplerOf
    seed: int
    rows: Sequence[int]
    augment: bool
    consecutive: bool

    def __len__(self) -> int:
        return engine.ENDLESS

    def __getitem__(self, step: int) -> Batch:
        return self.make(step, self.filler.source.report)

    def make(self, step: int, report: Report) -> Batch:
        """The batch of a step; each damaged example that was drawn for it is reported."""
        sampler = self.sampler(step)
        first = sampler.batch(step)
        batch = engine.blank(len(self.rows), packed_fields(_text(self.filler).length))
        for position, row in enumerate(self.rows):
            rng = np.random.default_rng([self.seed, step, row])
            chosen, attempt, damaged = int(first[row]), 0, 0
            while damaged < engine.ATTEMPTS:
                try:
                    if not _append(
                        self.filler, batch, position, chosen, rng if self.augment else None
                    ):
                        break
                except Damaged as damage:
                    damaged += 1
                    report(self.filler.examples[chosen].row, damage)
                attempt += 1
                if self.consecutive:
                    chosen = (chosen + 1) % len(self.filler.examples)
                else:
                    chosen = sampler.another(step, row, attempt)
            if not batch["has_text"][position]:
                raise engine.all_damaged(self.filler, chosen)
        return batch


def packed_epoch(filler: engine.Filler, batch_size: int) -> Iterator[Batch]:
    """Every sentence once, in order, packed; `valid` is False in rows of padding."""
    fields = packed_fields(_text(filler).length)
    batch, row = engine.blank(batch_size, fields), 0
    for chosen in range(len(filler.examples)):
        try:
            fits = _append(filler, batch, row, chosen, None)
        except Damaged as damage:
            filler.source.report(filler.examples[chosen].row, damage)
            continue
        if not fits:
            row += 1
            if row == batch_size:
                yield batch | {"valid": np.ones(batch_size, np.bool_)}
                batch, row = engine.blank(batch_size, fields), 0
            _append(filler, batch, row, chosen, None)
    yield batch | {"valid": batch["has_text"].copy()}


def packed_fields(length: int) -> Fields:
    """Shapes and types of one packed row."""
    return {
        "text": ((length,), np.int32),
        "text_mask": ((length,), np.bool_),
        "has_text": ((), np.bool_),
        "text_segments": ((length,), np.int32),
        "text_positions": ((length,), np.int32),
    }


def _append(filler: engine.Filler, batch: Batch, row: int, chosen: int, rng: Rng) -> bool:
    """Adds a sentence to a row; False, row unchanged: it does not fit.

    The first sentence of a row always fits, since it is cut. Raises Damaged.
    """
    record, lang = filler.examples[chosen]
    tokenizer, length = _text(filler).tokenizer, _text(filler).length
    used = int(batch["text_mask"][row].sum())
    ids, mask = tokenizer.encode(filler.source.texts(record)[lang], length, rng)
    new = int(mask.sum())
    if used + new > length:
        return False
    here = slice(used, used + new)
    batch["text"][row, here], batch["text_mask"][row, here] = ids[:new], True
    batch["text_segments"][row, here] = batch["text_segments"][row].max() + 1
    batch["text_positions"][row, here] = np.arange(new)
    batch["has_text"][row] = True
    return True


def _text(filler: engine.Filler) -> Any:
    """The stream's only part, a TextPart."""
    return filler.parts[0]


class Lines:
    """A text file as a source: each non-empty line is a record of its own."""

    def __init__(self, path: str, lang: str):
        lines = Path(path).read_bytes().decode("utf8", errors="replace").splitlines()
        numbered = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
        if not numbered:
            raise UserError(f"{path}: has no text")
        self.entries = tuple(
            Entry(f"{path}:{number}", row, 0, (lang,), (), False)
            for row, (number, _) in enumerate(numbered)
        )
        self._texts = [{lang: line} for _, line in numbered]

    def texts(self, row: int) -> dict[str, str]:
        """{language: line}."""
        return self._texts[row]

    def canvas(self, row: int, side: int) -> np.ndarray:
        """There are no pictures."""
        raise Damaged("a line of text has no picture")

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        """There are no recordings."""
        raise Damaged("a line of text has no recording")

    def report(self, row: int, damage: Damaged) -> None:
        """Names a damaged line."""
        logging.getLogger(__name__).warning("left out %s: %s", self.entries[row].id, damage)


@functools.lru_cache(maxsize=4)
def _lines(path: str, lang: str) -> Lines:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such text file")
    return Lines(path, lang)
