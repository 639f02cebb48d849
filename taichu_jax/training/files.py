"""Files that are either whole or absent, whenever the process ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

PARTIAL = ".partial"  # ends the name of a file that is being written


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old content or all of the new."""
    partial = path.with_name(path.name + PARTIAL)
    with open(partial, "w", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class JsonLines:
    """A file of one JSON object a line that grows.

    Args:
      path: created if there is none.
      keep: of what an earlier process left, lines stay as long as this is true; the rest is cut off,
        and so is a line that was being written when that process ended.
    """

    def __init__(self, path: Path, keep: Callable[[Mapping[str, Any]], bool]):
        text = path.read_text("utf8") if path.exists() else ""
        lines = text.splitlines(keepends=True)
        kept = []
        for line in lines:
            row = _parse(line)
            if row is None or not keep(row):
                break
            kept.append(line)
        self.rows = len(kept)
        if len(kept) < len(lines) or not path.exists():
            write_whole(path, "".join(kept))
        self._file = open(path, "a", encoding="utf8")  # noqa: SIM115 (open as long as the run)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows; they are on the disk when this returns."""
        for row in rows:
            self._file.write(json.dumps(row) + "\n")
            self.rows += 1
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _parse(line: str) -> Any:
    try:
        return json.loads(line) if line.endswith("\n") else None
    except json.JSONDecodeError:
        return None
