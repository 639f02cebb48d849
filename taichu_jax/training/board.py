"""TensorBoard's event file, written by the thread that logs.

tensorboardX's own `SummaryWriter` writes in a thread behind a queue of ten. Where the disk is full
that thread dies, and the run would wait for a place in the queue for ever.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from taichu_jax.training.files import writing


class Board:
    """A folder that TensorBoard shows.

    Args:
      folder: created if there is none.
      purge_step: what earlier files say of this step and later ones is not shown any more.

    Raises (everything that writes):
      UserError: it cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(folder / "events"))
            if purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                self._file.write_event(
                    Event(wall_time=time.time(), step=purge_step, session_log=start)
                )

    def add_scalar(self, tag: str, value: float, step: int, seconds: float) -> None:
        """A number at a step and a time (seconds since 1970)."""
        self._add(summary.scalar(tag, value), step, seconds)

    def add_images(self, tag: str, values: np.ndarray, step: int, dataformats: str = "NCHW"):
        """Pictures, [0, 1] or bytes, side by side."""
        self._add(summary.image(tag, values, dataformats=dataformats), step)

    def add_audio(self, tag: str, wave: np.ndarray, step: int, sample_rate: int) -> None:
        """Sound in [-1, 1]."""
        self._add(summary.audio(tag, wave, sample_rate=sample_rate), step)

    def flush(self) -> None:
        """What was added is on the disk when this returns."""
        with writing(self._folder):
            self._file.flush()

    def close(self) -> None:
        # Only a failed `flush` leaves anything to write, and that has been said.
        with contextlib.suppress(OSError):
            self._file.close()

    def _add(self, content: Any, step: int, seconds: float | None = None) -> None:
        event = Event(wall_time=seconds or time.time(), step=step, summary=content)
        with writing(self._folder):
            self._file.write_event(event)
