"""An evaluation's numbers, pictures, words and recordings for TensorBoard."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from tensorboardX import SummaryWriter

from taichu_jax.training.metrics import TENSORBOARD

SHOWN = 40  # files of an evaluation; the report has all of them


class Board:
    """Writes beside the curves of a run's training.

    Args:
      run_dir: the run's folder.
      step: of the checkpoint that is evaluated.
    """

    def __init__(self, run_dir: pathlib.Path, step: int):
        self._writer, self._step = SummaryWriter(str(run_dir / TENSORBOARD)), step

    def show(self, name: str, result: Any, folder: pathlib.Path) -> None:
        """Adds the numbers of an evaluation's result, and its first media files.

        Args:
          name: of the evaluation; tags are evaluation/NAME/path/in/the/result.
          folder: what file names in the result are relative to.
        """
        shown = 0
        for tag, value in _leaves(result, f"evaluation/{name}"):
            if isinstance(value, str) and value.startswith("media/") and shown < SHOWN:
                shown += 1
                self._add_file(tag, folder / value)
            elif isinstance(value, int | float) and "/examples/" not in tag:
                self._writer.add_scalar(tag, value, self._step)

    def close(self) -> None:
        self._writer.close()

    def _add_file(self, tag: str, file: pathlib.Path) -> None:
        content = io.BytesIO(file.read_bytes())
        if file.suffix == ".mp3":
            samples, rate = soundfile.read(content, dtype="float32")
            samples = np.clip(samples, -1.0, 1.0)  # MP3 overshoots a little
            self._writer.add_audio(tag, samples, self._step, sample_rate=rate)
        else:
            pixels = np.asarray(Image.open(content).convert("RGB"))
            self._writer.add_image(tag, pixels, self._step, dataformats="HWC")


def _leaves(value: Any, tag: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{tag}/{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{tag}/{i}")
    else:
        yield tag, value
