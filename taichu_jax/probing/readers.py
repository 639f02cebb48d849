"""What a network reads of one example: NumPy arrays of static shapes, the same for every example.

    WaveReader       (samples [T] or log-mel frames [F, bands], how many are real)
    PictureReader    (pixels [S, S, 3] in [0, 1],)
    TextReader       (ids [L], true where there is one [L], number of the word of each id [L])

All are read as the network's own evaluation reads them: no augmentation, the beginning of what is too
long.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from taichu_jax.data import images
from taichu_jax.data.parts import AudioPart
from taichu_jax.probing.examples import Examples

Arrays = tuple[np.ndarray, ...]
NO_WORD = -1


class Reader(Protocol):
    """From an example to what a network is called with."""

    def shapes(self) -> tuple[tuple[tuple[int, ...], type], ...]:
        """Shape and type of each array of one example."""

    def read(self, examples: Examples, i: int) -> Arrays:
        """The arrays of one example. Raises Damaged."""


@dataclasses.dataclass(frozen=True)
class WaveReader:
    """Recordings, as a stream's `AudioPart` gives them without augmentation."""

    part: AudioPart

    def shapes(self):
        """Shape and type of each array of one example."""
        fields = self.part.fields()
        name = "mel" if self.part.form == "mel" else "audio"
        return fields[name], fields[f"{name}_lengths"]

    def read(self, examples: Examples, i: int) -> Arrays:
        """The arrays of one example."""
        (shape, kind), _ = self.shapes()
        values = self.part.values(examples.wave(i, self.part.trim)[: self.part.samples])
        row = np.zeros(shape, kind)
        row[: len(values)] = values
        return row, np.array(len(values), np.int32)


@dataclasses.dataclass(frozen=True)
class PictureReader:
    """Pictures, whole and in the middle, over white or over a plain colour that their name draws.

    Attributes:
      size: of a side, in pixels.
      coloured: the background is a colour; over white, what is background could be read off one pixel.
    """

    size: int
    coloured: bool = False

    def shapes(self):
        """Shape and type of each array of one example."""
        return (((self.size, self.size, 3), np.float32),)

    def read(self, examples: Examples, i: int) -> Arrays:
        """The arrays of one example."""
        square = examples.canvas(i, self.size * 3 // 2)
        if not self.coloured:
            return (images.render(square, self.size),)
        key = zlib.crc32(examples.rows[i].key.encode())
        placed = images.place(square, self.size)
        return (images.composite(placed, np.random.default_rng(key).random(3).tolist()),)

    def opaque(self, examples: Examples, i: int) -> np.ndarray:
        """float [S, S] in [0, 1]: how much of each pixel the thing covers."""
        square = examples.canvas(i, self.size * 3 // 2)
        return images.place(square, self.size)[..., 3] / np.float32(255)


Encode = Callable[[Sequence[str]], tuple[Sequence[int], Sequence[int]]]
"""From words to (ids, the number of the word that each comes from or NO_WORD), with special ids."""


@dataclasses.dataclass(frozen=True)
class TextReader:
    """Texts, or words with tags.

    Attributes:
      length: ids of the longest text; longer ones are cut, their last id stays.
      tagged: reads `examples.words`; the text as one word else.
    """

    encode: Encode
    length: int
    tagged: bool = False

    def shapes(self):
        """Shape and type of each array of one example."""
        row = (self.length,)
        return (row, np.int32), (row, np.bool_), (row, np.int32)

    def read(self, examples: Examples, i: int) -> Arrays:
        """The arrays of one example."""
        words = examples.words(i)[0] if self.tagged else [examples.text(i)]
        ids, owners = self.encode(words)
        if len(ids) > self.length:
            ids = [*ids[: self.length - 1], ids[-1]]
            owners = [*owners[: self.length - 1], NO_WORD]
        row, owner = np.zeros(self.length, np.int32), np.full(self.length, NO_WORD, np.int32)
        row[: len(ids)], owner[: len(ids)] = ids, owners
        return row, np.arange(self.length) < len(ids), owner


def zeros(reader: Reader, count: int) -> Arrays:
    """Empty arrays of `count` examples."""
    return tuple(np.zeros((count, *shape), kind) for shape, kind in reader.shapes())


def our_encode(tokenizer: Any) -> Encode:
    """Of a tokenizer of this project."""
    from taichu_jax.data.tokenizer import CLS, SEP

    def encode(words):
        pieces = [tokenizer.pieces(word if n == 0 else f" {word}") for n, word in enumerate(words)]
        owners = [n for n, inner in enumerate(pieces) for _ in inner]
        return [CLS, *(i for inner in pieces for i in inner), SEP], [NO_WORD, *owners, NO_WORD]

    return encode
