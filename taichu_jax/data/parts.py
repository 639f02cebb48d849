"""One modality each: the static fields it adds to a batch, and how an example fills its row.

Rows start as zeros, which is also what an absent modality looks like: has_*=False, length 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from taichu_jax.data import audio, images
from taichu_jax.data.items import Damaged
from taichu_jax.data.records import Entry
from taichu_jax.data.tokenizer import Tokenizer
from taichu_jax.data.units import UnitCrops

Fields = dict[str, tuple[tuple[int, ...], type]]  # name -> shape of one example, type
Batch = dict[str, np.ndarray]
Rng = np.random.Generator | None  # None: no augmentation


class Example(NamedTuple):
    """A picture seen through one language."""

    row: int  # of the split's records
    lang: str


class Source(Protocol):
    """Where the parts find an example's content; see records.Decoded."""

    @property
    def entries(self) -> Sequence[Entry]:
        """What each record has."""

    def texts(self, row: int) -> dict[str, str]:
        """{language: text}."""

    def canvas(self, row: int, side: int) -> np.ndarray:
        """uint8 [side, side, 4], premultiplied. Raises Damaged."""

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        """int16 [samples]. Raises Damaged."""

    def report(self, row: int, damage: Damaged) -> None:
        """Counts and names a damaged example."""


class Part(Protocol):
    """What a stream is put together from."""

    def fields(self) -> Fields:
        """Shapes and types of one example."""

    def fill(self, batch: Batch, row: int, example: Example, source: Source, rng: Rng) -> None:
        """Writes an example into `batch[...][row]`. Raises Damaged."""


@dataclasses.dataclass(frozen=True)
class TextPart:
    """text int32 [L], text_mask bool [L], has_text bool."""

    length: int
    tokenizer: Tokenizer | None

    def fields(self) -> Fields:
        """Shapes and types of one example."""
        return {
            "text": ((self.length,), np.int32),
            "text_mask": ((self.length,), np.bool_),
            "has_text": ((), np.bool_),
        }

    def fill(self, batch: Batch, row: int, example: Example, source: Source, rng: Rng) -> None:
        """Writes the description in the example's language, if there is one."""
        if self.tokenizer is not None and example.lang in source.entries[example.row].texts:
            text = source.texts(example.row)[example.lang]
            ids, mask = self.tokenizer.encode(text, self.length, rng)
            batch["text"][row], batch["text_mask"][row], batch["has_text"][row] = ids, mask, True


@dataclasses.dataclass(frozen=True)
class ImagePart:
    """image float32 [S, S, 3] in [0, 1] and has_image bool; with two views also image2."""

    size: int
    views: int
    augment: images.ImageAugment

    def fields(self) -> Fields:
        """Shapes and types of one example."""
        picture = ((self.size, self.size, 3), np.float32)
        views = {f"image{suffix}": picture for suffix in _suffixes(self.views)}
        return {**views, "has_image": ((), np.bool_)}

    def fill(self, batch: Batch, row: int, example: Example, source: Source, rng: Rng) -> None:
        """Writes each view of the picture, if there is one."""
        if source.entries[example.row].image:
            # Half as many pixels again as are shown, so that zooming in stays sharp.
            canvas = source.canvas(example.row, self.size * 3 // 2)
            for suffix in _suffixes(self.views):
                batch[f"image{suffix}"][row] = (
                    images.render(canvas, self.size)
                    if rng is None
                    else self.augment(canvas, rng, self.size)
                )
            batch["has_image"][row] = True


@dataclasses.dataclass(frozen=True)
class AudioPart:
    """A recording as a wave or as a log-mel spectrogram.

    form='waveform': audio float32 [T] and audio_lengths int32 (samples), T = 16,000 seconds.
    form='mel': mel float32 [F, bands] and mel_lengths int32 (frames), F = T // 160 (one frame
    fewer than the spectrogram of a full wave has, so that F divides well).
    Both: has_audio bool, and audio_start int32: the sample of the (augmented) recording at which
    the row starts. With two views also audio2 or mel2, and so on.
    With `units`: units int32 [K], those of the row's stretch of the recording, -1 where none is.
    With `clean`: clean_mel float32 [F, bands], the frames of the same stretch at the same speed, but
    neither normalised nor masked, and without noise and changes of loudness: what is to be heard.
    """

    form: str
    samples: int
    bands: int
    views: int
    normalise: bool
    trim: bool
    augment: audio.AudioAugment
    units: UnitCrops | None = None
    clean: bool = False

    def fields(self) -> Fields:
        """Shapes and types of one example."""
        fields: Fields = {"has_audio": ((), np.bool_)}
        for suffix in _suffixes(self.views):
            if self.form == "mel":
                frames = self.samples // audio.HOP
                fields[f"mel{suffix}"] = ((frames, self.bands), np.float32)
                fields[f"mel_lengths{suffix}"] = ((), np.int32)
                if self.clean:
                    fields[f"clean_mel{suffix}"] = ((frames, self.bands), np.float32)
            else:
                fields[f"audio{suffix}"] = ((self.samples,), np.float32)
                fields[f"audio_lengths{suffix}"] = ((), np.int32)
            fields[f"audio_start{suffix}"] = ((), np.int32)
            if self.units is not None:
                fields[f"units{suffix}"] = ((self.units.size(self.samples),), np.int32)
        return fields

    def fill(self, batch: Batch, row: int, example: Example, source: Source, rng: Rng) -> None:
        """Writes each view of the recording in the example's language, if there is one."""
        if example.lang not in source.entries[example.row].recordings:
            return
        stored = source.wave(example.row, example.lang, self.trim)
        name = "mel" if self.form == "mel" else "audio"
        for suffix in _suffixes(self.views):
            wave, clean, start, heard = self._wave(stored, rng)
            values = self.values(wave, rng)
            batch[f"{name}{suffix}"][row, : len(values)] = values
            batch[f"{name}_lengths{suffix}"][row] = len(values)
            if self.clean:
                batch[f"clean_mel{suffix}"][row, : len(values)] = self._frames(clean)
            batch[f"audio_start{suffix}"][row] = start
            if self.units is not None:
                batch[f"units{suffix}"][row] = self.units.crop(
                    (source.entries[example.row].id, example.lang),
                    recorded=len(stored),
                    heard=heard,
                    start=start,
                    samples=len(wave),
                    size=self.units.size(self.samples),
                )
        batch["has_audio"][row] = True

    def values(self, wave: np.ndarray, rng: Rng = None) -> np.ndarray:
        """What a network reads of a wave float32 of at most `samples`: samples, or mel frames."""
        if self.form == "mel":
            return self._mel(wave, rng)
        return audio.normalise_wave(wave) if self.normalise else wave

    def _wave(self, stored: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray, int, int]:
        """(a crop, the same one clean, where it starts, samples of what it was cropped from)."""
        wave = stored.astype(np.float32) * np.float32(1 / 32767)
        if rng is None:
            crop = wave[: self.samples]
            return crop, crop, 0, len(wave)
        timed = self.augment.timed(wave, rng)
        crop, start = audio.crop(self.augment.sounding(timed, rng), rng, self.samples)
        return crop, timed[start : start + self.samples], start, len(timed)

    def _mel(self, wave: np.ndarray, rng: Rng) -> np.ndarray:
        mel = self._frames(wave)
        mel = audio.normalise_mel(mel) if self.normalise else mel
        return mel if rng is None else self.augment.mel(mel, rng)

    def _frames(self, wave: np.ndarray) -> np.ndarray:
        return audio.log_mel(wave, self.bands)[: self.samples // audio.HOP]


def _suffixes(views: int) -> tuple[str, ...]:
    return ("", *(str(view) for view in range(2, views + 1)))
