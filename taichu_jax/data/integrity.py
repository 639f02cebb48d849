"""Whether an encoded file is whole, as far as its format can tell.

Decoders forgive: libsndfile plays half a WAV, and leaves out a damaged Ogg page, without a word;
Pillow stops at the last row of a PNG and never looks at the end. What a format promises about itself
(lengths, checksums, a last page) is checked here instead. JPEG, GIF, WebP and MP3 have no checksum: of
those only a missing end is found, by their decoders.
"""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from taichu_jax.data.items import Damaged

LARGEST_FILE = 2**28  # bytes
_PNG = b"\x89PNG\r\n\x1a\n"
_UNKNOWN = 0xFFFFFFFF  # length of a WAV that was written to a pipe
_LAST_PAGE = 4  # flag of an Ogg page

# Ogg's checksum has the polynomial of zlib's with the bits of each byte in the other order.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
      Damaged: it cannot be read, or is larger than LARGEST_FILE.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= LARGEST_FILE:
                return file.read(size)
    except OSError as error:
        raise Damaged(f"file cannot be read ({error.strerror or error})") from error
    raise Damaged(f"file is larger than {LARGEST_FILE:,} bytes")


def check_picture(data: bytes) -> None:
    """Raises Damaged for a PNG that is cut short or has a chunk that fails its checksum."""
    if not data.startswith(_PNG):
        return
    offset, kind = len(_PNG), b""
    while kind != b"IEND":
        size = int.from_bytes(data[offset : offset + 4], "big")
        kind = data[offset + 4 : offset + 8]
        end = offset + 8 + size
        if len(data) < end + 4:
            raise Damaged("picture is cut short")
        if zlib.crc32(data[offset + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise Damaged("picture is damaged (checksum)")
        offset = end + 4


def sound_format(data: bytes) -> str:
    """'WAV', 'FLAC', 'OGG' or 'MP3', by the content; the file is whole so far.

    Raises:
      Damaged: none of these, cut short, or a checksum that does not fit.
    """
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        _check_wav(data)
        return "WAV"
    if data.startswith(b"fLaC"):
        return "FLAC"
    if data.startswith(b"OggS"):
        _check_ogg(data)
        return "OGG"
    if data.startswith(b"ID3") or (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):
        return "MP3"
    raise Damaged("sound cannot be decoded (not WAV, FLAC, OGG or MP3)")


def _check_wav(data: bytes) -> None:
    offset = 12
    while len(data) >= offset + 8:
        kind, size = struct.unpack("<4sI", data[offset : offset + 8])
        whole = len(data) >= offset + 8 + size
        if kind == b"data":
            if not whole and size != _UNKNOWN:
                raise Damaged("sound is cut short")
            return
        offset += 8 + size + size % 2
    raise Damaged("sound is cut short")


def _check_ogg(data: bytes) -> None:
    """Every page of every stream is there, in order, whole, and the last one says so."""
    offset, pages, ended = 0, dict[bytes, int](), dict[bytes, bool]()
    while offset < len(data):
        head = data[offset : offset + 27]
        if len(head) < 27:
            raise Damaged("sound is cut short")
        if head[:5] != b"OggS\0":
            raise Damaged("sound is damaged (not an Ogg page)")
        sizes = data[offset + 27 : offset + 27 + head[26]]
        size = 27 + head[26] + sum(sizes)
        page = data[offset : offset + size]
        if len(sizes) < head[26] or len(page) < size:
            raise Damaged("sound is cut short")
        if ogg_checksum(page) != head[22:26]:
            raise Damaged("sound is damaged (checksum)")
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if number != pages.get(stream, number):
            raise Damaged("sound is damaged (a page is missing)")
        pages[stream], ended[stream] = number + 1, bool(head[5] & _LAST_PAGE)
        offset += size
    if not all(ended.values()):
        raise Damaged("sound is cut short")


def ogg_checksum(page: bytes) -> bytes:
    """The four bytes of a page's checksum, whatever stands there now."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    # zlib inverts the register before and after; both are undone.
    register = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return register.to_bytes(4, "big").translate(_REVERSED)


def check_flac(data: bytes, samples: np.ndarray) -> None:
    """Raises Damaged unless the decoded samples have the digest that the header gives.

    Args:
      samples: int32 [frames, channels] at full scale.
    """
    digest, bits = data[26:42], ((data[20] & 1) << 4 | data[21] >> 4) + 1
    if not any(digest):
        return  # the encoder could not go back to write it
    size = (bits + 7) // 8
    raw = (samples >> (32 - bits)).astype("<i4")
    raw = np.ascontiguousarray(raw).view(np.uint8).reshape(-1, 4)[:, :size]
    if hashlib.md5(raw.tobytes(), usedforsecurity=False).digest() != digest:
        raise Damaged("sound is damaged (checksum)")
