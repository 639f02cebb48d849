"""Reads prepared data: random access to records, an index of them, and a cache of decoded arrays."""

import dataclasses
import functools
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.items import Damaged
from taichu_jax.errors import UserError

VERSION = "1.0.0"  # of the record's schema


def status_path(data_dir: str | Path, name: str) -> Path:
    """The JSON report of a prepared data set; written last."""
    return Path(data_dir) / name / "status.json"


def index_path(data_dir: str | Path, name: str) -> Path:
    """The JSON index of a prepared data set."""
    return Path(data_dir) / name / "index.json"


@dataclasses.dataclass(frozen=True)
class Record:
    """One prepared picture. Missing modalities are empty."""

    id: str
    concept: int
    category: str
    subcategory: str
    image: bytes  # PNG
    texts: dict[str, str]
    recordings: dict[str, bytes]  # FLAC, 16 kHz, mono
    effect: bytes  # FLAC


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the index knows of a record."""

    id: str
    concept: int
    category: int  # index into Index.categories
    texts: tuple[str, ...]  # languages
    recordings: tuple[str, ...]  # languages
    image: bool


class Records:
    """Random access to the records of one split."""

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(row)
        raw = self._source[row]
        texts = zip(raw["texts"]["lang"], raw["texts"]["text"], strict=True)
        voices = zip(raw["recordings"]["lang"], raw["recordings"]["audio"], strict=True)
        return Record(
            id=raw["id"].decode(),
            concept=int(raw["concept"]),
            category=raw["category"].decode(),
            subcategory=raw["subcategory"].decode(),
            image=raw["image"],
            texts={k.decode(): v.decode() for k, v in texts},
            recordings={k.decode(): v for k, v in voices},
            effect=raw["effect"],
        )


def open_records(data_dir: str | Path, name: str, split: str) -> Records:
    """Random access to a split of a prepared data set.

    Raises:
      UserError: the data set is not prepared, or has no such split.
    """
    folder = Path(data_dir) / name / VERSION
    if not folder.is_dir():
        raise UserError(_not_prepared(data_dir, name))
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    if split not in builder.info.splits:
        raise UserError(f"{name} has no split {split!r}; {choices(split, builder.info.splits)}")
    return Records(builder.as_data_source(split=split))


@dataclasses.dataclass(frozen=True)
class Index:
    """The entries of one split, in the order of its records."""

    entries: tuple[Entry, ...]
    categories: tuple[str, ...]  # of the whole data set, sorted


@functools.lru_cache(maxsize=32)
def _load_index(path: Path, split: str, changed: int) -> Index:
    del changed  # only part of the key: a data set prepared anew is read anew
    content = json.loads(path.read_text("utf8"))
    splits = content["splits"]
    if split not in splits:
        raise UserError(f"{path.parent.name} has no split {split!r}; {choices(split, splits)}")
    number = {category: i for i, category in enumerate(content["categories"])}
    return Index(
        entries=tuple(
            Entry(key, concept, number[category], tuple(texts), tuple(voices), image)
            for key, concept, category, texts, voices, image in splits[split]
        ),
        categories=tuple(content["categories"]),
    )


def load_index(data_dir: str | Path, name: str, split: str) -> Index:
    """The index of a split.

    Raises:
      UserError: the data set is not prepared, or has no such split.
    """
    path = index_path(data_dir, name)
    if not status_path(data_dir, name).is_file():
        raise UserError(_not_prepared(data_dir, name))
    return _load_index(path, split, path.stat().st_mtime_ns)


def _not_prepared(data_dir: str | Path, name: str) -> str:
    return (
        f"no prepared data set {name!r} in {data_dir}; "
        f"make it with: python launch/prepare.py --data_dir {data_dir}"
    )


class Decoded:
    """Pictures, words and voices of one split, decoded once and kept up to `limit` bytes.

    What does not fit is decoded again each time. Safe to use from several threads.
    """

    def __init__(self, data_dir: str, name: str, split: str, limit: int = 512 * 2**20):
        self._where = (data_dir, name, split, limit)
        self.index = load_index(data_dir, name, split)
        self.entries = self.index.entries
        self._records = open_records(data_dir, name, split)
        self._cache: dict[Any, Any] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._named: set[str] = set()
        self.damaged = 0  # examples that could not be used; each is named once in the log

    def __reduce__(self) -> Any:
        return Decoded, self._where  # a worker process opens its own files

    def texts(self, row: int) -> dict[str, str]:
        """{language: text}."""

        def read() -> tuple[dict[str, str], int]:
            texts = self._records[row].texts
            return texts, sum(200 + len(text) for text in texts.values())

        return self._get(("texts", row), read)

    def canvas(self, row: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied. Raises Damaged."""
        from taichu_jax.data import images

        def read() -> tuple[np.ndarray, int]:
            array = images.canvas(images.decode(self._records[row].image), side)
            return array, array.nbytes

        return self._get(("canvas", row, side), read)

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        """int16 [samples] at 16 kHz, if asked without silent ends. Raises Damaged."""
        from taichu_jax.data import audio

        def read() -> tuple[np.ndarray, int]:
            wave = audio.decode(self._records[row].recordings[lang])
            wave = audio.trim_silence(wave) if trim else wave
            array = np.round(wave * 32767).astype(np.int16)
            return array, array.nbytes

        return self._get(("wave", row, lang, trim), read)

    def report(self, row: int, damage: Damaged) -> None:
        """Counts an unusable example, and names it in the log the first time."""
        self.damaged += 1
        name = self.entries[row].id
        if name not in self._named:
            self._named.add(name)
            logging.getLogger(__name__).warning("left out %s: %s", name, damage)

    def _get(self, key: Any, read: Any) -> Any:
        if key in self._cache:
            return self._cache[key]
        value, size = read()
        with self._lock:
            if key not in self._cache and self._bytes + size <= self._where[-1]:
                self._cache[key] = value
                self._bytes += size
        return value


@functools.lru_cache(maxsize=8)
def _shared(data_dir: str, name: str, split: str, changed: int) -> Decoded:
    del changed
    return Decoded(data_dir, name, split)


def decoded(data_dir: str | Path, name: str, split: str) -> Decoded:
    """The split's `Decoded`, shared by all streams of this process."""
    load_index(data_dir, name, split)  # says what is missing
    changed = index_path(data_dir, name).stat().st_mtime_ns
    return _shared(str(data_dir), name, split, changed)
