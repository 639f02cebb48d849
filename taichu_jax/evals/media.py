"""Pictures and recordings for people: originals of a stream's examples, and files for the report.

Files are named by their content, so one that is used twice is stored once.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pathlib

import numpy as np
import soundfile
from PIL import Image

from taichu_jax.data.audio import RATE

SIDE = 144  # pixels of a shown original
_LOUDEST = 0.999  # of MP3: beyond it the encoder warns and cuts


class Originals:
    """What a stream's examples are made from, by the number in the batch field `example`."""

    def __init__(self, run, stream):
        self._data = stream.source(run.config.data.dir)
        self._examples = stream.select(self._data)
        self._trim = getattr(stream, "trim", False)  # heard as the model hears it

    def row(self, example: int) -> int:
        """The picture's number in its split: the same for all languages of a picture."""
        return self._examples[int(example)][0]

    def text(self, example: int) -> str:
        row, language = self._examples[int(example)]
        return self._data.texts(row).get(language, "")

    def wave(self, example: int) -> np.ndarray:
        """float32 [samples] at 16 kHz."""
        row, language = self._examples[int(example)]
        return self._data.wave(row, language, self._trim).astype(np.float32) / 32767

    def picture(self, example: int) -> np.ndarray:
        """uint8 [SIDE, SIDE, 3] on white."""
        canvas = self._data.canvas(self.row(example), SIDE).astype(np.int32)
        return np.clip(canvas[..., :3] + 255 - canvas[..., 3:], 0, 255).astype(np.uint8)


class Folder:
    """Writes media files and returns their names relative to the evaluation's folder."""

    def __init__(self, out_dir: pathlib.Path):
        self._root = pathlib.Path(out_dir)
        (self._root / "media").mkdir(parents=True, exist_ok=True)

    def picture(self, image: np.ndarray, *, exact: bool = False) -> str:
        """[H, W, 3], float in [0, 1] or uint8; `exact` keeps every pixel (PNG), else WebP."""
        if image.dtype != np.uint8:
            image = np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
        buffer = io.BytesIO()
        if exact:
            Image.fromarray(image).save(buffer, "PNG", optimize=True)
            return self._write(buffer.getvalue(), "png")
        Image.fromarray(image).save(buffer, "WEBP", quality=88)
        return self._write(buffer.getvalue(), "webp")

    def clip(self, wave: np.ndarray) -> str:
        """float [samples] at 16 kHz, as MP3: a third of FLAC's size, and every browser plays it."""
        buffer = io.BytesIO()
        wave = np.clip(wave, -_LOUDEST, _LOUDEST)
        soundfile.write(buffer, wave, RATE, format="MP3", subtype="MPEG_LAYER_III")
        return self._write(buffer.getvalue(), "mp3")

    def spectrogram(self, mel: np.ndarray, low: float, high: float) -> str:
        """[frames, bands] as colours between `low` and `high`, low bands at the bottom."""
        share = np.clip((mel.T[::-1] - low) / max(high - low, 1e-6), 0.0, 1.0)
        return self.picture(_colours()[np.round(share * 255).astype(int)], exact=True)

    def _write(self, content: bytes, suffix: str) -> str:
        name = f"media/{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
        (self._root / name).write_bytes(content)
        return name


class Gallery:
    """Cards of a stream's examples: {"text": words, "image": file, "audio": file}."""

    def __init__(self, run, stream, out_dir: pathlib.Path):
        self._originals = Originals(run, stream)
        self._folder = Folder(out_dir)

    @functools.cache  # noqa: B019 (lives as long as one evaluation)
    def part(self, example: int, modality: str) -> str:
        originals = self._originals
        if modality == "text":
            return originals.text(example)
        if modality == "image":
            return self._folder.picture(originals.picture(example))
        return self._folder.clip(originals.wave(example))

    def card(self, example: int, modalities: tuple[str, ...]) -> dict[str, str]:
        """The given modalities of one example."""
        return {m: self.part(int(example), m) for m in modalities}


@functools.cache
def _colours() -> np.ndarray:
    import matplotlib

    return (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8)
