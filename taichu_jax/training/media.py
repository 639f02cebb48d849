"""Pictures and recordings of a batch for TensorBoard: what the networks are really shown."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from taichu_jax.data.audio import RATE
from taichu_jax.training.board import Board

SHOWN = 8  # rows of a batch


def show_batch(board: Board, batch: Mapping[str, Mapping[str, jax.Array]], step: int) -> None:
    """Adds the first rows of every stream: pictures, spectrograms as pictures, samples as sound.

    Args:
      batch: stream -> field -> array [B, ...]; of the rows that this process holds.
      step: updates done.
    """
    for stream, fields in batch.items():
        for name, values in fields.items():
            tag = f"batch/{stream}/{name}"
            if values.ndim == 4 and values.shape[-1] == 3:
                board.add_images(tag, _rows(values), step, dataformats="NHWC")
            elif name.startswith("mel") and values.ndim == 3:
                board.add_images(tag, np.stack(list(map(_grey, _rows(values)))), step)
            elif name.startswith("audio") and values.ndim == 2:
                for row, wave in enumerate(_rows(values)):
                    loudest = max(float(np.abs(wave).max()), 1e-6)
                    board.add_audio(f"{tag}/{row}", wave / loudest, step, sample_rate=RATE)


def _rows(values: jax.Array) -> np.ndarray:
    """The first rows that lie on this process's first device."""
    return np.asarray(values.addressable_shards[0].data[:SHOWN])


def _grey(mel: np.ndarray) -> np.ndarray:
    """[frames, bands] as one channel [1, bands, frames] in [0, 1], low bands at the bottom."""
    low, high = np.percentile(mel, [2, 99.5])
    return np.clip((mel.T[::-1] - low) / max(high - low, 1e-6), 0.0, 1.0)[None]
