"""What probes are asked about: examples with labels, from prepared data or from somebody's own files.

A row says what is known without opening anything: its name, its split, what it may not be separated
from (`group`: pictures of the same thing), and its labels by column. Content is read when it is needed.
"""

from __future__ import annotations

import dataclasses
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from taichu_jax.data.items import Damaged
from taichu_jax.data.records import decoded, load_index, open_records
from taichu_jax.errors import UserError

MODALITIES = ("speech", "image", "text")
TRAIN, TEST = "train", "test"
SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One example."""

    key: str
    split: str
    group: str
    labels: Mapping[str, str]


class Examples(Protocol):
    """Rows and their content. Reading raises Damaged."""

    name: str
    modality: str
    own: bool  # somebody's own files, not a prepared data set

    @property
    def rows(self) -> Sequence[Row]:
        """All examples."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the numbers should know about the data."""

    def wave(self, i: int, trim: bool = False) -> np.ndarray:
        """float32 [samples] at 16 kHz."""

    def canvas(self, i: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied."""

    def text(self, i: int) -> str:
        """What is written, or said in a recording; '' if nobody knows."""

    def words(self, i: int) -> tuple[list[str], list[str]]:
        """(words, a tag for each)."""


class Prepared:
    """A prepared data set through one modality; splits train, test and test_recordings.

    speech: every recording; image: every picture; text: every description, in every language.
    """

    own = False

    def __init__(self, data_dir: str, dataset: str, modality: str):
        self.name, self.modality = dataset, modality
        self.notes: list[str] = []
        self.rows: list[Row] = []
        self._places: list[tuple[str, int, str]] = []
        self._sources = {}
        for split in (TRAIN, TEST, "test_recordings"):
            index = load_index(data_dir, dataset, split)
            self._sources[split] = decoded(data_dir, dataset, split)
            finer = _subcategories(data_dir, dataset, split) if modality == "image" else {}
            for lang, row in sorted(_examples(index.entries, modality)):
                entry = index.entries[row]
                labels = {"category": index.categories[entry.category]}
                if modality == "image":
                    labels["subcategory"] = finer[row]
                else:
                    labels["language"] = lang
                key = f"{entry.id} ({lang})" if lang else entry.id
                self.rows.append(Row(key=key, split=split, group=str(entry.concept), labels=labels))
                self._places.append((split, row, lang))

    def wave(self, i: int, trim: bool = False) -> np.ndarray:
        """float32 [samples] at 16 kHz."""
        split, row, lang = self._places[i]
        return self._sources[split].wave(row, lang, trim).astype(np.float32) / 32767

    def canvas(self, i: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied."""
        split, row, _ = self._places[i]
        return self._sources[split].canvas(row, side)

    def text(self, i: int) -> str:
        """The description in the row's language."""
        split, row, lang = self._places[i]
        return self._sources[split].texts(row).get(lang, "")

    def words(self, i: int) -> tuple[list[str], list[str]]:
        """None: prepared data have no tags."""
        raise UserError(f"{self.name}: has no words with tags")


def _examples(entries, modality: str) -> Iterable[tuple[str, int]]:
    for row, entry in enumerate(entries):
        if modality == "image":
            if entry.image:
                yield "", row
        else:
            for lang in entry.recordings if modality == "speech" else entry.texts:
                yield lang, row


def _subcategories(data_dir: str, dataset: str, split: str) -> dict[int, str]:
    """'CATEGORY/SUBCATEGORY' of every record that can be read."""
    found, records = {}, open_records(data_dir, dataset, split)
    for row in range(len(records)):
        try:
            record = records[row]
            found[row] = f"{record.category}/{record.subcategory}".rstrip("/")
        except Damaged:  # named when its picture is read
            found[row] = ""
    return found


def fifth(groups: Sequence[str]) -> np.ndarray:
    """bool [N]: the examples of a fifth of the groups, drawn by their names; one group at least."""
    names = sorted(set(groups), key=lambda name: (zlib.crc32(name.encode()), name))
    chosen = set(names[: max(1, len(names) // 5)])
    return np.array([group in chosen for group in groups], bool)


def thinned(rows: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of them, at even distances."""
    size = min(limit, len(rows))
    return [rows[i] for i in np.linspace(0, len(rows) - 1, size).astype(int)] if size else []


class Harm:
    """Damaged examples: counted, and named once each in the log."""

    def __init__(self, examples: Examples):
        self._examples = examples
        self.reasons: dict[int, str] = {}

    def add(self, i: int, damage: Damaged) -> None:
        """Takes note of one."""
        if i not in self.reasons:
            self.reasons[i] = str(damage)
            name = self._examples.rows[i].key
            logging.getLogger(__name__).warning("left out %s: %s", name, damage)

    def note(self) -> str:
        """'2 damaged examples left out: NAME (REASON); ...', or ''."""
        if not self.reasons:
            return ""
        shown = [f"{self._examples.rows[i].key} ({why})" for i, why in self.reasons.items()]
        more = "; ..." if len(shown) > SHOWN else ""
        return f"{len(shown):,} damaged left out: {'; '.join(shown[:SHOWN])}{more}"
