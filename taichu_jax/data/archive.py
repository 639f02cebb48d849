"""Unpacks a package from elsewhere: nothing is written outside the folder, nor more than was allowed.

Only folders, files and links to files of the same archive come out, and links come out as copies: a
link on the disk could lead the next member out of the folder. Nothing else of a member counts: owners,
modes and times are those of any new file.
"""

import dataclasses
import lzma
import posixpath
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from taichu_jax.data.items import Skipped, leads_out, name_fault
from taichu_jax.errors import UserError

_BLOCK = 2**20
_DESCRIPTIONS = (b"x", b"g", b"X", b"L", b"K")  # types of blocks that describe the next member
_OPENERS: dict[str, Callable[[], Any]] = {
    "data.tar.xz": lzma.LZMADecompressor,
    "data.tar.gz": lambda: zlib.decompressobj(31),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may take."""

    total: int = 2 * 2**30  # bytes of all files
    one: int = 2**28  # bytes of one file
    members: int = 200_000


def unpack_deb(deb: Path, target: Path, limits: Limits = Limits()) -> list[Skipped]:
    """Unpacks the data of a Debian package into `target`; returns what was left out.

    Raises:
      UserError: not a package, damaged, or more than the limits allow.
    """
    try:
        with open(deb, "rb") as file:
            name, size = _data_member(file, deb)
            if name in _OPENERS:
                stream: _Reads = _Unpacked(_parts(file, size), _OPENERS[name]())
                return _unpack(stream, target, limits)
        return _with_dpkg(deb, name, target, limits)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise UserError(f"{deb}: cannot be unpacked ({error}); delete it and try again") from error


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _with_dpkg(deb: Path, name: str, target: Path, limits: Limits) -> list[Skipped]:
    """For what Python cannot decompress: dpkg-deb does that, and writes no file."""
    if shutil.which("dpkg-deb") is None:
        raise UserError(f"{deb}: cannot unpack {name} without dpkg; install dpkg")
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            return _unpack(process.stdout, target, limits)
        finally:
            process.kill()


def _data_member(file: IO[bytes], deb: Path) -> tuple[str, int]:
    """(name, bytes) of data.tar.*, to whose start `file` is moved.

    A .deb is an `ar` archive: 60-byte headers, members at even offsets.
    """
    magic = b"!<arch>\n"
    end, offset = file.seek(0, 2), len(magic)
    file.seek(0)
    if file.read(len(magic)) != magic:
        raise ValueError("not a Debian package")
    while offset < end:
        file.seek(offset)
        header = file.read(60)
        name = header[:16].decode("ascii").strip().rstrip("/")
        if len(header) < 60 or not header[48:58].strip().isdigit():
            raise ValueError("a damaged header")
        size = int(header[48:58])
        offset += 60
        if offset + size > end:
            raise ValueError("cut short")
        if name.startswith("data.tar"):
            return name, size
        offset += size + size % 2
    raise ValueError("it has no data.tar")


def _parts(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        part = file.read(min(_BLOCK, size))
        if not part:
            raise EOFError("cut short")
        size -= len(part)
        yield part


class _Unpacked:
    """What a decompressor makes of some parts, at most a block at a time: a bomb never fits at once."""

    def __init__(self, parts: Iterator[bytes], opener: Any):
        self._parts, self._opener, self._rest = parts, opener, b""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._opener.eof:
            made = self._make(size)
            if made:
                return made
        return b""

    def _make(self, size: int) -> bytes:
        if isinstance(self._opener, lzma.LZMADecompressor):
            part = next(self._parts, b"") if self._opener.needs_input else b""
            if self._opener.needs_input and not part:
                raise EOFError("cut short")
            return self._opener.decompress(part, size)
        part = self._rest or next(self._parts, b"")
        if not part:
            raise EOFError("cut short")
        made = self._opener.decompress(part, size)
        self._rest = self._opener.unconsumed_tail
        return made


class _Counted:
    """A stream that may be read only so far."""

    def __init__(self, stream: _Reads, most: int):
        self._stream, self._left = stream, most

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        made = self._stream.read(size)
        self._left -= len(made)
        if self._left < 0:
            raise ValueError("it is larger than was allowed")
        return made


class _Member(tarfile.TarInfo):
    """A member whose long name is not read into memory if it is absurdly long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: Any, errors: str) -> "_Member":
        """Makes it from a header block."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _DESCRIPTIONS and member.size > _BLOCK:
            raise ValueError("a name or header of a member is absurdly long")
        return member


def _unpack(stream: _Reads, target: Path, limits: Limits) -> list[Skipped]:
    skipped, links, written, total = [], dict[str, str](), dict[str, int](), 0
    target.mkdir(parents=True, exist_ok=True)
    counted = _Counted(stream, limits.total + limits.members * 2 * tarfile.BLOCKSIZE)
    with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Member) as archive:  # type: ignore[call-overload]
        for number, member in enumerate(archive):
            if number >= limits.members:
                raise ValueError(f"more than {limits.members:,} members")
            name = posixpath.normpath(member.name)
            shown = ascii(member.name)[1:-1]
            if name_fault(name) or leads_out(member.name):
                skipped.append(Skipped(shown, "name leads out of the folder or cannot be printed"))
            elif member.issym():
                links[name] = posixpath.join(posixpath.dirname(name), member.linkname)
            elif member.islnk():
                links[name] = member.linkname
            elif member.isfile():
                if name in written:
                    skipped.append(Skipped(shown, "a second member of the same name"))
                    continue
                total = _added(total, member.size, limits)
                source = archive.extractfile(member)
                assert source is not None  # it is a file
                _write(target / name, source)
                written[name] = member.size
            elif not member.isdir():
                skipped.append(Skipped(shown, "neither a file nor a folder nor a link"))
    for name, link in sorted(links.items()):
        source_name = posixpath.normpath(link)
        if source_name not in written or name in written:
            skipped.append(Skipped(name, "a link to nothing in this archive"))
            continue
        total = _added(total, written[source_name], limits)
        with open(target / source_name, "rb") as source:
            _write(target / name, source)
        written[name] = written[source_name]
    return skipped


def _added(total: int, size: int, limits: Limits) -> int:
    """Both together, if that is allowed."""
    if size > limits.one or total + size > limits.total:
        raise ValueError(f"more than {limits.one:,} bytes in a file or {limits.total:,} in all")
    return total + size


def _write(path: Path, source: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        shutil.copyfileobj(source, file, _BLOCK)
