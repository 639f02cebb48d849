"""Reads prepared data: random access to records, an index of them, and a cache of decoded arrays."""

import dataclasses
import functools
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.items import Damaged
from taichu_jax.data.languages import INDEX
from taichu_jax.errors import UserError

VERSION = "1.0.0"  # of the record's schema


def folder_of(data_dir: str | Path, name: str) -> Path:
    """Where a prepared data set lies.

    Raises:
      UserError: the name would lead elsewhere.
    """
    if not name.isidentifier():
        raise UserError(f"dataset={name!r}: must consist of letters, digits and _")
    return Path(data_dir) / name


def status_path(data_dir: str | Path, name: str) -> Path:
    """The JSON report of a prepared data set; written last."""
    return folder_of(data_dir, name) / "status.json"


def index_path(data_dir: str | Path, name: str) -> Path:
    """The JSON index of a prepared data set."""
    return folder_of(data_dir, name) / "index.json"


def read_status(data_dir: str | Path, name: str) -> dict[str, Any] | None:
    """The report of a prepared data set; None: there is none.

    Raises:
      UserError: it is damaged.
    """
    path = status_path(data_dir, name)
    if not path.is_file():
        return None
    try:
        status = json.loads(path.read_text("utf8"))
        kinds = {"name": str, "kind": str, "message": str, "fingerprint": str, "splits": dict}
        if not all(isinstance(status[key], kind) for key, kind in kinds.items()):
            raise ValueError("not a report")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(_damaged(path, data_dir, name)) from error
    return status


def seal(folder: Path) -> dict[str, list[Any]]:
    """{path: [bytes, sha256]} of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sealed(path) for path in files}


def _sealed(path: Path) -> list[Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, digest]


def check_files(data_dir: str | Path, name: str, status: dict[str, Any], *, whole: bool) -> None:
    """Compares the files of a data set with its report. (Reports of older data sets have no seal.)

    Args:
      whole: read every byte. Otherwise sizes count, and the content of all but the records, which
        have checksums of their own that are compared when a record is read.

    Raises:
      UserError: a file is missing or not what was written.
    """
    folder = folder_of(data_dir, name)
    for relative, sealed in status.get("files", {}).items():
        path = folder / relative
        try:
            right = path.stat().st_size == sealed[0]
            if right and (whole or ".array_record" not in relative):
                right = _sealed(path) == sealed
        except OSError:
            right = False
        if not right:
            raise UserError(_damaged(path, data_dir, name))


@functools.lru_cache(maxsize=32)
def _check_once(data_dir: str, name: str, changed: int) -> None:
    del changed  # only part of the key: a data set prepared anew is checked anew
    status = read_status(data_dir, name)
    if status is not None:
        check_files(data_dir, name, status, whole=False)


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
    """Random access to the records of one split. Reading a damaged one raises Damaged."""

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(row)
        try:
            return _record(self._source[row])
        except Exception as error:  # what a damaged file raises depends on where it is damaged
            reason = str(error).partition(";")[0].splitlines() or [type(error).__name__]
            raise Damaged(f"record {row} cannot be read ({reason[0]})") from error


def _record(raw: Any) -> Record:
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
      UserError: the data set is not prepared, is damaged, or has no such split.
    """
    folder = folder_of(data_dir, name) / VERSION
    if not folder.is_dir():
        raise UserError(_not_prepared(data_dir, name))
    status = status_path(data_dir, name)
    if status.is_file():  # else it is being prepared
        _check_once(str(data_dir), name, status.stat().st_mtime_ns)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        known = split in builder.info.splits
        source = builder.as_data_source(split=split) if known else None
    except Exception as error:  # what its damaged files raise depends on where they are damaged
        raise UserError(_damaged(folder, data_dir, name)) from error
    if source is None:
        raise UserError(f"{name} has no split {split!r}; {choices(split, builder.info.splits)}")
    return Records(source)


@dataclasses.dataclass(frozen=True)
class Index:
    """The entries of one split, in the order of its records."""

    entries: tuple[Entry, ...]
    categories: tuple[str, ...]  # of the whole data set, sorted


@functools.lru_cache(maxsize=32)
def _load_index(data_dir: str, name: str, split: str, changed: int) -> Index:
    del changed  # only part of the key: a data set prepared anew is read anew
    path = index_path(data_dir, name)
    try:
        content = json.loads(path.read_text("utf8"))
        categories = tuple(map(str, content["categories"]))
        number = {category: i for i, category in enumerate(categories)}
        rows = {
            key: [_entry(row, number) for row in rows] for key, rows in content["splits"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(_damaged(path, data_dir, name)) from error
    if split not in rows:
        raise UserError(f"{name} has no split {split!r}; {choices(split, rows)}")
    return Index(entries=tuple(rows[split]), categories=categories)


def _entry(row: Any, number: dict[str, int]) -> Entry:
    key, concept, category, texts, voices, image = row
    if not (isinstance(key, str) and isinstance(concept, int) and isinstance(image, bool)):
        raise ValueError(f"not an entry: {row!r}")
    if not all(lang in INDEX for lang in (*texts, *voices)):
        raise ValueError(f"unknown language in {row!r}")
    return Entry(key, concept, number[category], tuple(texts), tuple(voices), image)


def load_index(data_dir: str | Path, name: str, split: str) -> Index:
    """The index of a split.

    Raises:
      UserError: the data set is not prepared, is damaged, or has no such split.
    """
    status = status_path(data_dir, name)
    if not status.is_file():
        raise UserError(_not_prepared(data_dir, name))
    _check_once(str(data_dir), name, status.stat().st_mtime_ns)
    path = index_path(data_dir, name)
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    return _load_index(str(data_dir), name, split, changed)


def _not_prepared(data_dir: str | Path, name: str) -> str:
    return (
        f"no prepared data set {name!r} in {data_dir}; "
        f"make it with: python launch/prepare.py --data_dir {data_dir}"
    )


def _damaged(path: Path, data_dir: str | Path, name: str) -> str:
    return (
        f"{path}: is damaged; prepare {name!r} again with the command that made it: "
        f"python launch/prepare.py --data_dir {data_dir} ..."
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
        if len(self._records) != len(self.entries):
            raise UserError(_damaged(index_path(data_dir, name), data_dir, name))
        self._cache: dict[Any, Any] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._named: set[str] = set()
        self.damaged = 0  # examples that could not be used; each is named once in the log

    def __reduce__(self) -> Any:
        return Decoded, self._where  # a worker process opens its own files

    def texts(self, row: int) -> dict[str, str]:
        """{language: text}. Raises Damaged."""

        def read() -> tuple[dict[str, str], int]:
            texts = self._record(row).texts
            return texts, sum(200 + len(text) for text in texts.values())

        return self._get(("texts", row), read)

    def canvas(self, row: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied. Raises Damaged."""
        from taichu_jax.data import images

        def read() -> tuple[np.ndarray, int]:
            array = images.canvas(images.decode(self._record(row).image), side)
            return array, array.nbytes

        return self._get(("canvas", row, side), read)

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        """int16 [samples] at 16 kHz, if asked without silent ends. Raises Damaged."""
        from taichu_jax.data import audio

        def read() -> tuple[np.ndarray, int]:
            wave = audio.decode(self._record(row).recordings[lang])
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

    def _record(self, row: int) -> Record:
        """The record, if it is what the index says of it. Raises Damaged."""
        record, entry = self._records[row], self.entries[row]
        here = (record.id, tuple(record.texts), tuple(record.recordings), bool(record.image))
        if here != (entry.id, entry.texts, entry.recordings, entry.image):
            raise Damaged(f"record {row} is not what the index says ({record.id!r})")
        return record

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
