"""Pictures: decoding, placing on a square canvas, compositing, and augmentation.

Decoded pictures are uint8 [height, width, 4] with straight alpha. A canvas is uint8 [side, side, 4]
with premultiplied alpha (colour times opacity), which is what may be resized and rotated without
dark fringes. A rendered picture is float32 [size, size, 3] in [0, 1]. Augmentations are pure
functions of (array, numpy Generator).
"""

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps

from taichu_jax.data.integrity import check_picture, read_file
from taichu_jax.data.items import Damaged
from taichu_jax.data.svg import rasterise
from taichu_jax.errors import UserError

LARGEST = 256  # longest side, in pixels, of a prepared picture
LARGEST_PIXELS = 2**26  # of a picture that is decoded at all
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")  # others start programs, or cannot be checked
WHITE = (1.0, 1.0, 1.0)
_GREY = np.array((0.299, 0.587, 0.114))  # what red, green and blue add to brightness


# ------------------------------------------------------------------------------------ coding


def decode(encoded: bytes | Path) -> np.ndarray:
    """uint8 [height, width, 4] of an encoded picture, upright; of an animation the first frame.

    The content decides on the format, one of FORMATS; only SVG, which comes out LARGEST pixels long, is
    known by its suffix.

    Raises:
      Damaged: not decodable, cut short, too large, or nothing to be seen in it.
      UserError: Pillow was told to accept half pictures.
    """
    data = read_file(encoded) if isinstance(encoded, Path) else encoded
    if isinstance(encoded, Path) and encoded.suffix.lower() == ".svg":
        data = rasterise(data, LARGEST)
    if PIL.ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UserError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES=True: must be False")
    check_picture(data)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height <= LARGEST_PIXELS:
                pixels = _rgba(image, data[24] if image.format == "PNG" else 8)
    except Exception as error:  # foreign bytes make decoders raise whatever they like
        reason = re.sub(r"<_io.*?>", "", f"{type(error).__name__}: {error}").strip()
        raise Damaged(f"picture cannot be decoded ({reason})") from error
    if width * height > LARGEST_PIXELS:
        raise Damaged(f"picture is too large ({width} x {height} pixels)")
    if not pixels[..., 3].any():
        raise Damaged("picture is empty: all of it is transparent")
    return pixels


def _rgba(image: PIL.Image.Image, depth: int) -> np.ndarray:
    """uint8 [height, width, 4] of a picture whose values were stored in `depth` bits."""
    image.load()
    clear = image.info.get("transparency")
    if image.mode == "L" and isinstance(clear, int):
        # Pillow spreads grey of 2 and 4 bits over 0 to 255, but not the value that is transparent.
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    image = PIL.ImageOps.exif_transpose(image)
    if not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGBA"))
    values = np.asarray(image)  # Pillow would cut 16 bits off at 255
    opaque = values != clear if isinstance(clear, int) else np.ones(values.shape, np.bool_)
    grey = (values >> 8).astype(np.uint8)
    return np.stack([grey, grey, grey, np.where(opaque, 255, 0).astype(np.uint8)], axis=-1)


def visible(pixels: np.ndarray) -> np.ndarray:
    """The picture without its wholly transparent margins."""
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def encode_png(pixels: np.ndarray, largest: int = LARGEST) -> bytes:
    """PNG of a decoded picture, shrunk so that no side is longer than `largest` pixels."""
    image = PIL.Image.fromarray(pixels)
    if max(image.size) > largest:
        scale = largest / max(image.size)
        size = [max(1, round(side * scale)) for side in image.size]
        image = image.resize(size, PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


# --------------------------------------------------------------------------------- rendering


def canvas(pixels: np.ndarray, side: int) -> np.ndarray:
    """The picture as large as fits, in the middle of a transparent square of `side` pixels."""
    image = PIL.Image.fromarray(pixels).convert("RGBa")  # small a: premultiplied
    scale = side / max(image.size)
    size = [max(1, round(length * scale)) for length in image.size]
    square = PIL.Image.new("RGBa", (side, side))
    corner = ((side - size[0]) // 2, (side - size[1]) // 2)
    square.paste(image.resize(size, PIL.Image.Resampling.BICUBIC), corner)
    return np.asarray(square)


def composite(
    square: np.ndarray,
    background: Sequence[float] = WHITE,
    jitter: Sequence[float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """float32 [side, side, 3]: a canvas over a plain colour, its colours scaled by `jitter`.

    Jitter is (brightness, contrast, saturation), 1 for no change: saturation moves colours from
    their grey, contrast from the picture's mean grey, brightness from black.
    """
    bright, sharp, vivid = jitter
    mix = bright * sharp * (vivid * np.eye(3) + (1 - vivid) * np.outer(_GREY, np.ones(3)))
    behind = np.asarray(background)
    # All of it is affine in the four channels: one product instead of many passes.
    weights = np.concatenate([mix, -(behind @ mix)[None]]) / 255
    offset = behind @ mix
    if sharp != 1:
        mean = np.add.reduce(square.reshape(-1, 4), axis=0, dtype=np.int64) / square[..., 0].size
        grey = (mean[:3] + (255 - mean[3]) * behind) @ _GREY / 255
        offset = offset + bright * (1 - sharp) * grey
    image = square.reshape(-1, 4).astype(np.float32) @ weights.astype(np.float32)
    image += offset.astype(np.float32)
    np.clip(image, 0.0, 1.0, out=image)
    return image.reshape(*square.shape[:2], 3)


def render(square: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size, 3] for evaluation: the whole canvas over white."""
    if len(square) != size:
        image = _premultiplied(square)
        square = np.asarray(image.resize((size, size), PIL.Image.Resampling.BILINEAR))
    return composite(square)


def _premultiplied(square: np.ndarray) -> PIL.Image.Image:
    size = square.shape[1::-1]
    return PIL.Image.frombuffer("RGBa", size, np.ascontiguousarray(square), "raw", "RGBa", 0, 1)


# ------------------------------------------------------------------------------ augmentation


def place(
    square: np.ndarray,
    size: int,
    *,
    zoom: float = 1.0,
    move: Sequence[float] = (0.0, 0.0),
    degrees: float = 0.0,
    mirror: bool = False,
) -> np.ndarray:
    """A canvas [size, size, 4] that shows `square` scaled, turned and moved about its middle.

    `move` is in parts of the side, to the right and down. What leaves the canvas is cropped.
    """
    ratio = len(square) / (size * zoom)
    angle = math.radians(degrees)
    cos, sin = ratio * math.cos(angle), ratio * math.sin(angle)
    flip = -1.0 if mirror else 1.0
    half, middle = size / 2, len(square) / 2
    # Pillow asks, for each target pixel, where it comes from.
    x, y = half + move[0] * size, half + move[1] * size
    a, b, d, e = flip * cos, flip * sin, -sin, cos
    matrix = (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y)
    moved = _premultiplied(square).transform(
        (size, size), PIL.Image.Transform.AFFINE, matrix, PIL.Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAugment:
    """What training does to a picture. A zero (or an empty range) turns a part off."""

    zoom: tuple[float, float] = (0.8, 1.15)
    move: float = 0.1  # of the side, each way
    degrees: float = 10.0
    mirror: bool = False  # off: letters and signs must not be mirrored
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    background: bool = True  # a random colour instead of white

    def __call__(self, square: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        """float32 [size, size, 3] of a canvas."""
        zoom = math.exp(rng.uniform(*np.log(self.zoom)))
        move = rng.uniform(-self.move, self.move, 2).tolist()
        degrees = rng.uniform(-self.degrees, self.degrees)
        mirror = self.mirror and rng.random() < 0.5
        placed = place(square, size, zoom=zoom, move=move, degrees=degrees, mirror=mirror)
        background = rng.random(3).tolist() if self.background else WHITE
        amounts = (self.brightness, self.contrast, self.saturation)
        jitter = 1 + rng.uniform(-1, 1, 3) * amounts
        return composite(placed, background, jitter.tolist())
