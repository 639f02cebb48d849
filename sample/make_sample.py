"""Makes the sample from the full collection: python sample/make_sample.py STAMPS_DIR

Deterministic: the same collection and library versions give the same files. What is changed:
  pictures    shrunk so that no side is longer than 128 pixels, margins cut, SVG rasterised; PNG
  recordings  16 kHz mono, Ogg Opus (the collection's are Ogg Vorbis, mostly 44.1 kHz)
  texts       as they are
"""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from taichu_jax.data import audio, images, stamps  # noqa: E402
from taichu_jax.data.items import Item  # noqa: E402
from taichu_jax.data.splits import BIG_LANGUAGES, fraction  # noqa: E402

_WORD = 2**32 - 1
PICTURES = 96
SIDE = 128  # pixels
SECONDS = 4.0  # stamps with a longer recording are left out, to save room
LANGUAGES = (*BIG_LANGUAGES, "en")


def choose(items: list[Item]) -> list[Item]:
    """Pictures read aloud in all of BIG_LANGUAGES, taking turns among the categories."""
    turns: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: fraction(f"sample {item.id}")):
        if all(lang in item.recordings for lang in BIG_LANGUAGES) and _short(item):
            turns.setdefault(item.category, []).append(item)
    chosen: list[Item] = []
    while len(chosen) < PICTURES:
        for category in sorted(turns):
            if turns[category] and len(chosen) < PICTURES:
                chosen.append(turns[category].pop(0))
    return chosen


def _short(item: Item) -> bool:
    return all(
        soundfile.info(item.recordings[lang]).duration <= SECONDS
        for lang in LANGUAGES
        if lang in item.recordings
    )


def write(item: Item, root: Path, target: Path) -> None:
    """Copies one stamp, made smaller."""
    stem = target / item.id
    stem.parent.mkdir(parents=True, exist_ok=True)
    pixels = images.visible(images.decode(item.image))
    stem.with_name(stem.name + ".png").write_bytes(images.encode_png(pixels, SIDE))
    shutil.copyfile(root / f"{item.id}.txt", stem.with_name(stem.name + ".txt"))
    for lang in LANGUAGES:
        if lang in item.recordings:
            name = f"{stem.name}_desc{'' if lang == 'en' else '_' + lang}.ogg"
            wave = audio.decode(item.recordings[lang])
            stem.with_name(name).write_bytes(_opus(wave))


def _opus(wave: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    options = {"format": "OGG", "subtype": "OPUS", "compression_level": 1.0}
    soundfile.write(buffer, wave, audio.RATE, **options)
    # libsndfile numbers the stream at random; zero it, so that the bytes are always the same.
    pages = []
    for page in buffer.getvalue().split(b"OggS")[1:]:
        page = bytearray(b"OggS" + page)
        page[14:18] = page[22:26] = bytes(4)
        page[22:26] = _ogg_checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
    return b"".join(pages)


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it: polynomial 0x04c11db7, highest bit first, no final inversion."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ 0x04C11DB7 if checksum >> 31 else checksum << 1) & _WORD
    return checksum


def main() -> None:
    """Replaces the category folders of `sample/`."""
    if len(sys.argv) != 2:
        sys.exit(__doc__.splitlines()[0])
    root, target = Path(sys.argv[1]), Path(__file__).parent
    for folder in target.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    items, _ = stamps.parse(root)
    for item in choose([item for item in items if (root / f"{item.id}.txt").is_file()]):
        write(item, root, target)


if __name__ == "__main__":
    main()
