"""Discrete units of recordings, written offline (launch/cluster.py) and joined to batches by id.

    DIR/units.npy        the units of all recordings, one after the other
    DIR/centroids.npy    float32 [clusters, D], what each unit stands for
    DIR/units.json       what they are: rate, clusters, features, data set; the recordings, each with
                         (record id, language, samples, first unit, number of units); a checksum of
                         the two arrays and a seal, the checksum of all else in this file. Written
                         last: a folder without it holds no units

Unit k of a recording belongs to its sample k * 16,000 / rate. A crop that starts between two units
begins with the nearer one (fairseq rounds the same way).
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taichu_jax.data.audio import RATE
from taichu_jax.errors import UserError

UNITS, CENTROIDS, INFO = "units.npy", "centroids.npy", "units.json"
NONE = -1  # where there is no unit

Row = tuple[str, str, int, np.ndarray]  # record id, language, samples of the recording, its units


def write_units(
    folder: Path, facts: Mapping[str, Any], centroids: np.ndarray, total: int, rows: Iterable[Row]
) -> None:
    """Writes a folder of units; whoever reads it meanwhile finds none.

    Args:
      facts: at least rate, clusters, dataset and trim.
      total: number of units of all rows together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO).unlink(missing_ok=True)
    smallest = np.min_scalar_type(len(centroids) - 1)
    flat = np.lib.format.open_memmap(folder / UNITS, "w+", smallest, (total,))
    recordings, used = [], 0
    for key, lang, samples, units in rows:
        flat[used : used + len(units)] = units
        recordings.append([key, lang, samples, used, len(units)])
        used += len(units)
    flat.flush()
    np.save(folder / CENTROIDS, centroids.astype(np.float32), allow_pickle=False)
    content = {**facts, "checksum": _checksum(folder), "recordings": recordings}
    content["seal"] = _seal(content)
    partial = folder / f"{INFO}.partial"
    with open(partial, "w", encoding="utf8") as file:
        json.dump(content, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / INFO)


class Units:
    """The units of a folder, by record id and language.

    Attributes:
      facts: what they are (units.json without the list of recordings).
    """

    def __init__(self, folder: Path):
        try:
            content = json.loads((folder / INFO).read_text("utf8"))
            whole = content.pop("seal", None) in (None, _seal(content))  # older ones have none
            whole = content.pop("checksum") == _checksum(folder) and whole
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"units={folder}: cannot be read: {_line(error)}") from error
        if not whole:
            raise UserError(f"units={folder}: is damaged (checksum); write it again")
        try:
            self._flat = np.load(folder / UNITS, mmap_mode="r", allow_pickle=False)
            if self._flat.ndim != 1 or self._flat.dtype.kind != "u":
                raise ValueError(f"{UNITS} is not a row of numbers")
            self._rows = dict(
                _row(*row, total=len(self._flat)) for row in content.pop("recordings")
            )
        except Exception as error:  # NumPy's reader raises whatever its text parser does
            raise UserError(f"units={folder}: cannot be read: {_line(error)}") from error
        self.facts: dict[str, Any] = content

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._rows

    def of(self, key: tuple[str, str]) -> tuple[np.ndarray, int]:
        """(units of a recording, how many samples it had)."""
        samples, first, count = self._rows[key]
        return self._flat[first : first + count], samples


def open_units(folder: str | Path) -> Units:
    """The units of a folder, read once per process.

    Raises:
      UserError: there are none, or they are damaged.
    """
    path = Path(folder)
    try:
        changed = (path / INFO).stat().st_mtime_ns
    except OSError as error:
        raise UserError(
            f"units={folder}: no units there; write them with: python launch/cluster.py --config "
            f"FILE --to {folder}, FILE being this config, and --features mfcc or --run DIR --layer N"
        ) from error
    return _opened(path, changed)


@functools.lru_cache(maxsize=8)
def _opened(path: Path, changed: int) -> Units:
    del changed  # only part of the key: a folder written anew is read anew
    return Units(path)


@dataclasses.dataclass(frozen=True)
class UnitCrops:
    """The units that belong to crops of recordings.

    Attributes:
      folder: where the units lie; opened when the first crop is asked for.
      rate: units per second.
    """

    folder: str
    rate: float

    def size(self, samples: int) -> int:
        """How many units a row of so many samples has at most."""
        return int(np.ceil(samples * self.rate / RATE - 1e-6))

    def crop(
        self,
        key: tuple[str, str],
        *,
        recorded: int,
        heard: int,
        start: int,
        samples: int,
        size: int,
    ) -> np.ndarray:
        """int32 [size], the unit nearest to each of a row's own unit positions; -1 where none is.

        Args:
          key: record id and language.
          recorded: samples of the recording.
          heard: samples that were left of it when its speed had been changed.
          start, samples: the crop, in samples of what was heard.
        """
        units, known = open_units(self.folder).of(key)
        if known != recorded and len(units):
            raise UserError(
                f"units={self.folder}: {'/'.join(key)} had {known} samples then and {recorded} now; "
                "write the units of these data again"
            )
        positions = np.arange(size) * RATE / self.rate
        index = np.floor((start + positions) * (recorded / heard) * self.rate / RATE + 0.5)
        there = (positions <= samples) & (index < len(units))
        row = np.full(size, NONE, np.int32)
        row[there] = units[index[there].astype(np.int64)]
        return row

    def check(
        self, keys: Sequence[tuple[str, str]], *, dataset: str, trim: bool, clusters: int
    ) -> None:
        """Raises UserError unless there are units for all these recordings, of the kind expected."""
        units = open_units(self.folder)
        wanted = {"dataset": dataset, "trim": trim, "rate": self.rate, "clusters": clusters}
        names = {"rate": "unit_rate", "clusters": "unit_clusters"}
        for name, value in wanted.items():
            if units.facts.get(name) != value:
                raise UserError(
                    f"units={self.folder}: written with {name}={units.facts.get(name)!r}, but the "
                    f"stream has {names.get(name, name)}={value!r}"
                )
        missing = [key for key in keys if key not in units]
        if missing:
            raise UserError(
                f"units={self.folder}: {len(missing)} of {len(keys)} recordings have no units, the "
                f"first is {'/'.join(missing[0])}; write the units of these data again"
            )


def _row(
    key: str, lang: str, samples: int, first: int, count: int, *, total: int
) -> tuple[tuple[str, str], tuple[int, int, int]]:
    """A recording's entry, if the units that it names are there."""
    if not (isinstance(key, str) and isinstance(lang, str)):
        raise ValueError(f"not a recording: {key!r}, {lang!r}")
    if not (samples >= 0 <= first <= first + count <= total):
        raise ValueError(f"{key}/{lang} has units that are not there")
    return (key, lang), (int(samples), int(first), int(count))


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _seal(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (UNITS, CENTROIDS):
        with open(folder / name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
