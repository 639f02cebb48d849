"""Files that are either whole or absent, whenever the process ends."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taichu_jax.errors import UserError

PARTIAL = ".partial"  # ends the name of a file that is being written


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says in one line which file could not be written and why.

    Raises:
      UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old content or all of the new."""
    partial = path.with_name(path.name + PARTIAL)
    with open(partial, "w", encoding="utf8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class JsonLines:
    """A file of one JSON object a line, each with its `step`, that grows.

    Args:
      path: created if there is none.
      keep: of what an earlier process left, lines stay whose step satisfies this. Lines that are
        damaged go, and so does one that was being written when that process ended.

    Attributes:
      rows: lines it has.
      damaged: complete lines that could not be read.

    Raises:
      UserError: it cannot be read or written.
    """

    def __init__(self, path: Path, keep: Callable[[int], bool]):
        self._path, self.damaged = path, 0
        with writing(path):
            content = path.read_bytes() if path.exists() else b""
            *lines, torn = content.split(b"\n")
            kept = []
            for line in lines:
                step = _step(line)
                self.damaged += step is None
                if step is not None and keep(step):
                    kept.append(line + b"\n")
            self.rows = len(kept)
            if len(kept) < len(lines) or torn or not path.exists():
                write_whole(path, b"".join(kept).decode("utf8"))
            self._file = open(path, "a", encoding="utf8")  # noqa: SIM115 (open as long as the run)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows; they are on the disk when this returns.

        Raises:
          UserError: they could not be written.
        """
        with writing(self._path):
            for row in rows:
                self._file.write(json.dumps(row) + "\n")
                self.rows += 1
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        # Only a failed `append` leaves anything to write, and that has been said.
        with contextlib.suppress(OSError):
            self._file.close()


def _step(line: bytes) -> int | None:
    """The step of a line; None if it is damaged."""
    try:
        row = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if type(step) is int else None
