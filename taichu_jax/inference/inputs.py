"""A person's picture, sound and words as one row of a batch, read as prepared data are.

What is stored when data are prepared (a PNG without its margins, 16-bit FLAC) is made here too, and the
stream's own parts fill the row, so that a network meets nothing but what it was trained on.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from taichu_jax.config import choices
from taichu_jax.data import audio, images
from taichu_jax.data.items import Damaged, text_fault
from taichu_jax.data.languages import INDEX, UNKNOWN, known
from taichu_jax.data.parts import AudioPart, Example, ImagePart, TextPart
from taichu_jax.data.records import Entry
from taichu_jax.errors import UserError

LONGEST = 600.0  # seconds of a sound that is decoded at all; a run reads the first few of them
_CHARACTERS = 64  # per id, more than any vocabulary's pieces have on average
_PARTS = {"text": TextPart, "image": ImagePart, "audio": AudioPart}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What a person gives: any of the three. Also the source that a stream's parts read.

    Attributes:
      language: of the words and of the voice.
    """

    text: str | None = None
    image: Path | None = None
    audio: Path | None = None
    language: str = UNKNOWN

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that are there."""
        return tuple(name for name in _PARTS if getattr(self, name) is not None)

    @property
    def entries(self) -> list[Entry]:
        """The one example, as an index knows it."""
        texts, voices = ((self.language,) if x is not None else () for x in (self.text, self.audio))
        return [Entry("given", 0, 0, texts, voices, self.image is not None)]

    def texts(self, row: int) -> dict[str, str]:
        """{language: text}."""
        del row
        return {} if self.text is None else {self.language: self.text}

    @functools.cached_property
    def picture(self) -> np.ndarray:
        """uint8 [height, width, 4]. Raises Damaged."""
        assert self.image is not None
        return images.decode(images.encode_png(images.visible(images.decode(self.image))))

    @functools.cached_property
    def sound(self) -> np.ndarray:
        """float32 [samples] at 16 kHz. Raises Damaged."""
        assert self.audio is not None
        return audio.decode(audio.encode_flac(audio.decode(self.audio)))

    def canvas(self, row: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied. Raises Damaged."""
        del row
        return images.canvas(self.picture, side)

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        """int16 [samples]. Raises Damaged."""
        del row, lang
        wave = audio.trim_silence(self.sound) if trim else self.sound
        return np.round(wave * 32767).astype(np.int16)

    def report(self, row: int, damage: Damaged) -> None:
        """Nothing is passed over here."""
        raise damage


@dataclasses.dataclass(frozen=True)
class Read:
    """One row, as a network reads it.

    Attributes:
      batch: field -> array [1, ...].
      notes: what a person should know of how it was read.
    """

    batch: dict[str, np.ndarray]
    notes: tuple[str, ...]


def read(given: Given, stream: Any, tokenizer: Any, name: str = "this run") -> Read:
    """The given as a row of a stream.

    Args:
      stream: a `data.streams.Stream`.
      name: how messages call the run.

    Raises:
      UserError: nothing is given, the run does not read it, or it cannot be read.
    """
    parts: dict[str, Any] = {
        kind: part
        for part in stream.parts(tokenizer)
        for kind, cls in _PARTS.items()
        if isinstance(part, cls)
    }
    if not given.modalities:
        raise UserError("nothing to read: give --text, --image or --audio")
    for kind in given.modalities:
        if kind not in parts:
            raise UserError(f"{name}: reads no {kind}; it reads: {', '.join(parts)}")
    known(given.language, "--language")
    languages = getattr(stream, "languages", ())
    if languages and given.language not in (*languages, UNKNOWN):
        raise UserError(
            f"--language {given.language}: {name} was trained on {', '.join(languages)}; "
            f"{choices(given.language, languages)}"
        )
    notes: list[str] = []
    if given.text is not None:
        _check_text(given.text, parts["text"], tokenizer)
    if given.audio is not None:
        _check_length(given.audio)
    batch: dict[str, np.ndarray] = {"lang": np.array([INDEX[given.language]], np.int32)}
    for kind in given.modalities:
        part = parts[kind]
        for field, (shape, dtype) in part.fields().items():
            batch[field] = np.zeros((1, *shape), dtype)
        try:
            part.fill(batch, 0, Example(0, given.language), given, None)
        except Damaged as damage:
            raise UserError(f"{getattr(given, kind)}: {damage}") from damage
    if given.audio is not None:
        seconds, most = len(given.sound) / audio.RATE, parts["audio"].samples / audio.RATE
        if seconds > most:
            notes.append(f"of {seconds:.2f} s of sound the run reads the first {most:.2f} s")
    return Read(batch, tuple(notes))


def read_sound(path: Path) -> np.ndarray:
    """float32 [samples] at 16 kHz of a file.

    Raises:
      UserError: it cannot be read, or is longer than LONGEST.
    """
    _check_length(path)
    try:
        return audio.decode(path)
    except Damaged as damage:
        raise UserError(f"{path}: {damage}") from damage


def _check_text(text: str, part: TextPart, tokenizer: Any) -> None:
    if fault := text_fault(text):
        raise UserError(f"--text: {fault}")
    room = part.length - 2  # [CLS] and [SEP]
    count = f"{len(text):,} characters"
    if len(text) <= room * _CHARACTERS:
        ids = len(tokenizer.pieces(text))
        if ids <= room:
            return
        count += f", {ids:,} ids"
    raise UserError(f"--text: {count} are too long; the run reads {room} ids at most")


def _check_length(path: Path) -> None:
    """By the file's header, before hours of sound are decoded."""
    try:
        seconds = soundfile.info(str(path)).duration
    except (RuntimeError, OSError):
        return  # the decoder says what is wrong
    if seconds > LONGEST:
        hours, rest = divmod(round(seconds), 3600)
        raise UserError(
            f"{path}: {hours}:{rest // 60:02d}:{rest % 60:02d} of sound; at most {LONGEST:.0f} s are read"
        )
