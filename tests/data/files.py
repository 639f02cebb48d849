"""Files as bytes, made by hand where no library would write them."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib

import numpy as np
import soundfile

# Adam7: (first row, first column, row step, column step) of each pass.
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, *, depth=8, colour=0, extra=b"", interlaced=False):
    """PNG of integers [height, width, channels] of `depth` bits; `extra` are chunks before the data."""

    def rows(part):
        for row in part:
            bits = "".join(f"{value:0{depth}b}" for value in row.reshape(-1))
            bits += "0" * (-len(bits) % 8)
            yield b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")

    values = np.asarray(values)
    parts = [values]
    if interlaced:
        parts = [values[a::c, b::d] for a, b, c, d in ADAM7]
    raw = b"".join(row for part in parts if part.size for row in rows(part))
    head = struct.pack(">IIBBBBB", *values.shape[1::-1], depth, colour, 0, 0, interlaced)
    data = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def sound(samples, rate=16000, kind="WAV", subtype=None):
    """An encoded sound of [samples] or [samples, channels]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype, format=kind)
    return buffer.getvalue()


def picture(image, kind, **options):
    """An encoded Pillow image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tar(*members, mode="w:gz"):
    """An archive of (name, type, content or link's target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def deb(data, name=b"data.tar.gz"):
    """A Debian package around an archive."""
    package = b"!<arch>\n"
    for member, body in ((b"debian-binary", b"2.0\n"), (b"control.tar.xz", b"odd"), (name, data)):
        package += member.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8)
        package += str(len(body)).encode().ljust(10) + b"`\n" + body + b"\n" * (len(body) % 2)
    return package
