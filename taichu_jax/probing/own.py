"""Examples from somebody's own files.

    DIR/CLASS/NAME.png          a folder for every class; or DIR/train/CLASS/..., DIR/test/CLASS/...
    FILE.csv, FILE.jsonl        a line an example: `path` (beside the file) or `text`; every other column
                                is a label; `split` (train or test) if there is one; JSON lines may have
                                `words` and `tags`, lists of the same length
    tfds:NAME or tfds:DIR       see tfds_data.py

Pictures: png, jpg, gif, webp, bmp, svg; recordings: wav, flac, ogg, mp3; texts: txt. Without a split a
fifth of every class is the test, drawn by name. What cannot be read is left out, counted and named.
"""

from __future__ import annotations

import collections
import csv
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taichu_jax.config import choices
from taichu_jax.data import audio, images
from taichu_jax.data.integrity import read_file
from taichu_jax.data.items import Damaged, leads_out, text_fault
from taichu_jax.errors import UserError
from taichu_jax.probing.examples import TEST, TRAIN, Examples, Row

KINDS = {
    "image": (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".svg"),
    "speech": (".wav", ".flac", ".ogg", ".mp3"),
    "text": (".txt",),
}
MODALITY = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
TFDS = "tfds:"
SPLITS = {"train": TRAIN, "test": TEST}
PATH, TEXT, WORDS, TAGS, SPLIT = "path", "text", "words", "tags", "split"


def open_data(where: str, data_dir: str = "") -> Examples:
    """The examples of `--data`.

    Raises:
      UserError: there is no such data, or it has no labels.
    """
    if where.startswith(TFDS):
        from taichu_jax.probing.tfds_data import TfdsExamples

        return TfdsExamples(where.removeprefix(TFDS), data_dir)
    path = Path(where)
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in (".csv", ".jsonl") and path.is_file():
        return _table(path)
    raise UserError(f"--data {where}: valid: a folder of classes, a .csv, a .jsonl, {TFDS}NAME")


class Files:
    """Files, or texts, with labels."""

    own = True

    def __init__(self, name: str, modality: str, rows: Sequence[Row], contents: Sequence[Any]):
        self.name, self.modality, self.rows = name, modality, list(rows)
        self.notes: list[str] = []
        self._contents = list(contents)

    def wave(self, i: int, trim: bool = False) -> np.ndarray:
        """float32 [samples] at 16 kHz."""
        wave = audio.decode(self._contents[i])
        return audio.trim_silence(wave) if trim else wave

    def canvas(self, i: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied."""
        return images.canvas(images.decode(self._contents[i]), side)

    def text(self, i: int) -> str:
        """The text, or what is said."""
        content = self._contents[i]
        if self.modality != "text":
            return str(self.rows[i].labels.get(TEXT, ""))
        if isinstance(content, Path):
            try:
                content = read_file(content).decode("utf8")
            except UnicodeDecodeError as error:
                raise Damaged("text is not UTF-8") from error
        if fault := text_fault(content):
            raise Damaged(fault)
        return content

    def words(self, i: int) -> tuple[list[str], list[str]]:
        """(words, a tag for each)."""
        return self._contents[i]


def assigned(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows with splits train and test: theirs, or a fifth of every class drawn by name.

    Raises:
      UserError: only one of both is there.
    """
    splits = {row.split for row in rows}
    if splits == {""}:
        return _drawn(rows)
    if not {TRAIN, TEST} <= splits:
        raise UserError(
            f"{name}: has the splits {', '.join(sorted(x or '(none)' for x in splits))}; needed: train "
            "and test, or none at all"
        )
    return list(rows)


def _drawn(rows: Sequence[Row]) -> list[Row]:
    classes: dict[str, list[int]] = collections.defaultdict(list)
    for i, row in enumerate(rows):
        classes[row.labels.get("label", "")].append(i)
    test: set[int] = set()
    for members in classes.values():
        order = sorted(members, key=lambda i: zlib.crc32(rows[i].key.encode()))
        test.update(order[: len(order) // 5])
    return [
        Row(key=row.key, split=TEST if i in test else TRAIN, group=row.group, labels=row.labels)
        for i, row in enumerate(rows)
    ]


def one_modality(kinds: Iterable[str], name: str) -> str:
    """The only modality among these.

    Raises:
      UserError: there is none, or several.
    """
    counts = collections.Counter(kinds)
    if not counts:
        valid = ", ".join(suffix.lstrip(".") for suffix in MODALITY)
        raise UserError(f"{name}: has no example; valid files: {valid}")
    if len(counts) > 1:
        many = ", ".join(f"{count:,} of {kind}" for kind, count in sorted(counts.items()))
        raise UserError(f"{name}: has files of several kinds ({many}); one is needed")
    return next(iter(counts))


def _folder(root: Path) -> Files:
    parts = {split: root / split for split in SPLITS}
    apart = all(path.is_dir() for path in parts.values())
    rows, paths, other = [], [], []
    for split, part in parts.items() if apart else [("", root)]:
        for folder in sorted(path for path in part.iterdir() if path.is_dir()):
            for path in sorted(x for x in folder.rglob("*") if x.is_file()):
                key = path.relative_to(root).as_posix()
                if path.suffix.lower() not in MODALITY:
                    other.append(key)
                    continue
                labels = {"label": folder.name}
                rows.append(Row(key=key, split=split, group=key, labels=labels))
                paths.append(path)
    modality = one_modality((MODALITY[x.suffix.lower()] for x in paths), str(root))
    found = Files(root.name or str(root), modality, assigned(rows, str(root)), paths)
    if other:
        found.notes.append(f"{len(other):,} files of another kind left out: {other[0]}, ...")
    return found


def _table(path: Path) -> Files:
    lines = (_csv if path.suffix.lower() == ".csv" else _json_lines)(path)
    rows, contents, kinds, bad = [], [], [], []
    for number, line in lines:
        where = f"{path.name}:{number}"
        try:
            row, content, kind = _line(path, where, line)
        except Damaged as damage:
            bad.append(f"{where} ({damage})")
            continue
        rows.append(row)
        contents.append(content)
        kinds.append(kind)
    modality = one_modality(kinds, str(path))
    found = Files(path.stem, modality, assigned(rows, str(path)), contents)
    if bad:
        more = "; ..." if len(bad) > 3 else ""
        found.notes.append(f"{len(bad):,} damaged lines left out: {'; '.join(bad[:3])}{more}")
    return found


def _line(path: Path, where: str, line: dict[str, Any]) -> tuple[Row, Any, str]:
    if not isinstance(line, dict) or None in line:
        raise Damaged("is not an example")
    split = str(line.get(SPLIT) or "")
    if split and split not in SPLITS:
        raise UserError(f"{path}: {where}: split={split!r}; {choices(split, SPLITS)}")
    used = {PATH, SPLIT, WORDS, TAGS}
    labels = {str(k): str(v) for k, v in line.items() if k not in used and v not in (None, "")}
    key, kind = where, "text"
    content: Any
    if WORDS in line:
        content = (line[WORDS], line.get(TAGS))
        right = all(isinstance(x, list) and all(isinstance(y, str) for y in x) for x in content)
        if not right or not content[0] or len(content[0]) != len(content[1]):
            raise Damaged("words and tags are not two lists of the same length")
        labels[TAGS] = " "
    elif line.get(PATH):
        key = str(line[PATH])
        if leads_out(key):
            raise Damaged(f"path {key!r} leads out of the folder")
        content = path.parent / key
        kind = MODALITY.get(Path(key).suffix.lower(), "")
        if not kind:
            raise Damaged(f"{key!r} is of no known kind")
    elif isinstance(line.get(TEXT), str) and line[TEXT]:
        content = labels.pop(TEXT)
    else:
        raise Damaged(f"has neither {PATH} nor {TEXT}")
    if not labels:
        raise Damaged("has no label")
    return Row(key=key, split=split, group=key, labels=labels), content, kind


def _csv(path: Path) -> list[tuple[int, Any]]:
    return _read(path, lambda text: list(enumerate(csv.DictReader(text.splitlines()), 2)))


def _json_lines(path: Path) -> list[tuple[int, Any]]:
    def parsed(line):
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return None  # counted as damaged

    lines = _read(path, lambda text: list(enumerate(text.splitlines(), 1)))
    return [(number, parsed(line)) for number, line in lines if line.strip()]


def _read(path: Path, parse: Callable[[str], list]) -> list:
    try:
        return parse(read_file(path).decode("utf8"))
    except (Damaged, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
