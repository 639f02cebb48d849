"""Feeds thousands of damaged files to the code that reads data, and counts what comes of it.

python experiments/faults/fuzz.py --cases 5000 --seed 0

--cases N     how many files, shared out evenly over the formats
--seed N      of all mutations
--case N      only this case, in this process: to see what a failure did
--seconds N   that a file may take (60)
--keep DIR    where a file that made something fail is kept (runs/fuzz)
--json FILE   where the counts go (experiments/faults/fuzz.json)

A valid file is damaged (flipped bits, a missing end, zeros, noise, parts of it copied elsewhere, wrong
lengths, hostile words) and read as preparing or training would read it, in a process with limits of
time and memory. Right are two outcomes. 'decoded': finite values in the right range and shape; and for
records and units, which have checksums, the original values. 'refused': Damaged or a UserError, which
say why. Whatever else happens is a failure: its number is printed and its file is kept.
"""

import argparse
import collections
import contextlib
import io
import json
import math
import multiprocessing
import multiprocessing.connection
import pathlib
import resource
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np

MEMORY = 8 * 2**30  # bytes of address space; tables of programs count too
_WORDS = {
    "svg": (
        b"<g>" * 300, b"<use href='#a'/>", b"1e38", b"-1", b"NaN", b"&#0;", b"&a;", b"url(#a)",
        b'<image href="/etc/passwd" width="9" height="9"/>', b'width="99999999"', b'height="1e9"',
        b'<filter id="a"><feGaussianBlur stdDeviation="99999"/></filter>', b'filter="url(#a)"',
        b'<!DOCTYPE s [<!ENTITY a "b">]>', b"</svg>",
    ),
    "text": (
        b"\n", b"fr.utf8=", b"\0", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"zz.utf8=x", b"?" * 9,
    ),
    "manifest": (
        b"null", b"[" * 2000, b"1e999", b"9" * 5000, b'"\\ud800"', b'"../../etc/passwd"',
        b'"/etc/passwd"', b'"a\\u0000b"', b'"id"', b"{}", b'"en"', b"\xff", b"\xe2\x80\xa8", b"\n",
        b'"' + b"x" * 4000 + b'"',
    ),
    "record": (b"null", b"9" * 30, b"-1", b'"xx"', b"[]", b"{}", b"true"),
    "units": (b"null", b"9" * 30, b"-1", b'"xx"', b"[]", b"{}", b"True", b"'|O'", b"(9999999999,)"),
}  # fmt: skip


class Case(NamedTuple):
    """A damaged file."""

    number: int
    kind: str
    name: str  # of the file
    data: bytes


# ------------------------------------------------------------------------------------ damaging


def damaged(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """The file after one to three mutations."""
    mutations: list[Callable[[bytearray], None]] = []

    def place(part: bytearray) -> int:
        # Half of the time near the beginning, where the headers are.
        return int(rng.integers(max(1, min(len(part), 200) if rng.random() < 0.5 else len(part))))

    def flip(part: bytearray) -> None:
        for _ in range(int(rng.integers(1, 9))):
            if part:
                part[place(part)] ^= 1 << int(rng.integers(8))

    def cut(part: bytearray) -> None:
        del part[int(rng.integers(len(part) + 1)) :]

    def fill(part: bytearray) -> None:
        start, size = place(part), int(rng.integers(1, 65))
        noise = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
        part[start : start + size] = noise[: len(part) - start]

    def splice(part: bytearray) -> None:
        source, size = place(part), int(2 ** rng.uniform(0, 10))
        start = place(part)
        replaced = size if rng.random() < 0.5 else 0
        part[start : start + replaced] = part[source : source + size]

    def lengthen(part: bytearray) -> None:
        start, width = place(part), int(rng.choice((1, 2, 4, 8)))
        most = 2 ** (8 * width)
        value = int(rng.choice((0, 1, -1, 127, 2**31 - 1, 2**16, 10**6))) % most
        order: Any = "big" if rng.random() < 0.5 else "little"
        part[start : start + width] = value.to_bytes(width, order)

    def insert(part: bytearray) -> None:
        words = _WORDS[kind]
        start = place(part)
        part[start : start + int(rng.integers(3))] = words[int(rng.integers(len(words)))]

    mutations = [flip, flip, cut, fill, splice, lengthen]
    if kind in _WORDS:
        mutations += [insert] * 4
    part = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        mutations[int(rng.integers(len(mutations)))](part)
    if kind == "png" and rng.random() < 0.5:
        part = bytearray(_resealed(bytes(part)))  # so that the damage gets past the checksums
    if kind == "ogg" and rng.random() < 0.5:
        part = bytearray(_resealed_ogg(bytes(part)))
    return bytes(part)


def _resealed(png: bytes) -> bytes:
    """The PNG with checksums that fit."""
    part, offset = bytearray(png), 8
    while offset + 12 <= len(part):
        end = offset + 8 + int.from_bytes(part[offset : offset + 4], "big")
        if end + 4 > len(part):
            break
        part[end : end + 4] = zlib.crc32(part[offset + 4 : end]).to_bytes(4, "big")
        offset = end + 4
    return bytes(part)


def _resealed_ogg(ogg: bytes) -> bytes:
    """The Ogg file with checksums that fit."""
    from taichu_jax.data.integrity import ogg_checksum

    part, offset = bytearray(ogg), 0
    while part[offset : offset + 4] == b"OggS" and len(part) >= offset + 27:
        sizes = part[offset + 27 : offset + 27 + part[offset + 26]]
        end = offset + 27 + len(sizes) + sum(sizes)
        part[offset + 22 : offset + 26] = ogg_checksum(bytes(part[offset:end]))
        offset = end
    return bytes(part)


# ----------------------------------------------------------------------------------- originals


def originals(folder: pathlib.Path) -> dict[str, list[tuple[str, bytes]]]:
    """{kind: [(name, valid file)]}. Data sets and units are made in `folder`."""
    import PIL.Image
    import soundfile

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :32]
    colours = np.stack([8 * x, 10 * y, x * y % 256, np.full_like(x, 255)], -1).astype(np.uint8)
    picture = PIL.Image.fromarray(colours)
    tone = np.sin(np.arange(4000) * 0.3) * 0.5 + rng.normal(size=4000) * 0.01

    def drawn(kind: str, mode: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    def played(kind: str, subtype: str, channels: int = 1, rate: int = 16000) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, np.stack([tone] * channels, 1), rate, subtype, format=kind)
        return buffer.getvalue()

    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" viewBox="0 0 40 30"><defs>'
        '<linearGradient id="a"><stop offset="0" stop-color="red"/><stop offset="1" '
        'stop-color="blue"/></linearGradient><clipPath id="b"><circle cx="9" cy="9" r="9"/></clipPath>'
        '</defs><g clip-path="url(#b)"><rect width="30" height="20" fill="url(#a)"/></g><path '
        'd="M1 1L20 9C9 9 3 20 30 22z" stroke="#0f0" transform="rotate(9)"/><text>a</text></svg>'
    )
    text = "A red fish.\nfr.utf8=Un poisson rouge.\nde.utf8=Ein roter Fisch.\nzh_CN.utf8=红鱼。\n"
    entries = [
        {"id": f"fish {i}", "image": "a.png", "texts": {"en": f"Fish {i}.", "fr": "Un\u2028poisson"},
         "recordings": {"fr": "a.wav"}, "effect": "a.wav", "category": "animals", "split": "train"}
        for i in range(4)
    ]  # fmt: skip
    manifest = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode()
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    second = picture.convert("P").rotate(90)
    found = {
        "png": [("a.png", drawn("PNG", mode)) for mode in ("RGBA", "P", "L", "1", "LA", "I;16")],
        "jpeg": [
            ("a.jpg", drawn("JPEG", "RGB", exif=turned)),
            ("a.jpg", drawn("JPEG", "CMYK")),
            ("a.jpg", drawn("JPEG", "L", progressive=True)),
        ],
        "gif": [
            ("a.gif", drawn("GIF", "P")),
            ("a.gif", drawn("GIF", "P", save_all=True, append_images=[second])),
        ],
        "webp": [("a.webp", drawn("WEBP", "RGBA")), ("a.webp", drawn("WEBP", "RGBA", lossless=True))],
        "bmp": [("a.bmp", drawn("BMP", "RGB"))],
        "svg": [("a.svg", svg.encode())],
        "wav": [
            ("a.wav", played("WAV", "PCM_16")), ("a.wav", played("WAV", "FLOAT", 2, 44100)),
            ("a.wav", played("WAV", "PCM_24", 6, 48000)), ("a.wav", played("WAV", "PCM_U8", 1, 8000)),
            ("a.wav", played("WAV", "MS_ADPCM")),
        ],
        "ogg": [("a.ogg", played("OGG", "VORBIS")), ("a.ogg", played("OGG", "OPUS", 2, 48000))],
        "flac": [("a.flac", played("FLAC", "PCM_16")), ("a.flac", played("FLAC", "PCM_24", 2, 22050))],
        "mp3": [("a.mp3", played("MP3", "MPEG_LAYER_III"))],
        "text": [("a.txt", text.encode())],
        "manifest": [("m.jsonl", manifest)],
        "deb": [("a.deb", _package())],
    }  # fmt: skip
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "a.png").write_bytes(found["png"][0][1])
    (source / "a.wav").write_bytes(found["wav"][0][1])
    (source / "m.jsonl").write_bytes(manifest)
    _prepared(folder, source)
    data = folder / "data" / "fuzzed"
    files = [path for path in sorted(data.rglob("*")) if path.is_file()]
    found["record"] = [(str(path.relative_to(data)), path.read_bytes()) for path in files]
    found["units"] = [
        (path.name, path.read_bytes()) for path in sorted((folder / "units").iterdir())
    ]
    return found


def _prepared(folder: pathlib.Path, source: pathlib.Path) -> None:
    from taichu_jax.data import builder, units

    builder.prepare_manifest(folder / "data", "fuzzed", source / "m.jsonl")
    facts = {"rate": 100.0, "clusters": 7, "dataset": "fuzzed", "trim": False}
    rows = [(f"fish {i}", "fr", 4000, np.arange(9) % 7) for i in range(4)]
    units.write_units(folder / "units", facts, np.zeros((7, 3)), 36, rows)


def _package() -> bytes:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name, body in (("./usr/a.txt", b"A fish."), ("./usr/b/c.txt", b"B" * 3000)):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
        link = tarfile.TarInfo("./usr/d.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        archive.addfile(link)
    body = inner.getvalue()
    deb = b"!<arch>\n"
    for name, part in ((b"debian-binary", b"2.0\n"), (b"data.tar.gz", body)):
        deb += name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8)
        deb += str(len(part)).encode().ljust(10) + b"`\n" + part + b"\n" * (len(part) % 2)
    return deb


# ------------------------------------------------------------------------------------- reading


def read(case: Case, folder: pathlib.Path) -> str:
    """'decoded', or 'refused'. Anything that it raises is a failure.

    Args:
      folder: what `originals` made lies here.
    """
    from taichu_jax.data.items import Damaged
    from taichu_jax.errors import UserError

    work = pathlib.Path(tempfile.mkdtemp(dir=folder))
    try:
        _READERS[case.kind](case, folder, work)
    except (Damaged, UserError) as error:
        if not str(error):
            raise AssertionError("refused without a reason") from error
        return "refused"
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return "decoded"


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _write(case: Case, work: pathlib.Path) -> pathlib.Path:
    path = work / case.name
    path.write_bytes(case.data)
    return path


def _read_picture(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data import images

    pixels = images.decode(_write(case, work))
    _require(pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 4, "shape")
    again = images.decode(images.encode_png(images.visible(pixels)))
    _require(max(again.shape) <= images.LARGEST, "size")
    shown = images.ImageAugment()(images.canvas(again, 24), np.random.default_rng(0), 16)
    _require(shown.shape == (16, 16, 3) and shown.dtype == np.float32, "shape of what is shown")
    _require(np.isfinite(shown).all() and shown.min() >= 0 and shown.max() <= 1, "range")


def _read_sound(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data import audio

    wave = audio.decode(_write(case, work))
    _require(wave.dtype == np.float32 and wave.ndim == 1, "shape")
    _require(np.isfinite(wave).all() and np.abs(wave).max() <= 1, "range")
    mel = audio.normalise_mel(audio.log_mel(audio.trim_silence(wave[: 60 * audio.RATE])))
    _require(mel.ndim == 2 and np.isfinite(mel).all(), "spectrogram")
    again = audio.decode(audio.encode_flac(wave))
    _require(len(again) == len(wave) and np.abs(again - wave).max() < 2**-14, "stored wave")


def _read_text(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data import stamps
    from taichu_jax.data.items import Damaged, text_fault
    from taichu_jax.data.languages import INDEX
    from taichu_jax.data.sentences import Lines
    from taichu_jax.data.tokenizer import ByteTokenizer

    path = _write(case, work)
    texts, bad = stamps.read_texts(path)
    for lang, text in texts.items():
        _require(lang in INDEX and text_fault(text) is None, "text")
        ids, mask = ByteTokenizer().encode(text, 16, None)
        _require(ids.shape == mask.shape == (16,) and mask.any(), "ids")
    _require(all(reason for _, reason in bad), "a line left out without a reason")
    Lines(str(path), "en")
    if not texts:
        raise Damaged("no text")


def _read_manifest(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data import manifest, splits

    for name in ("a.png", "a.wav"):
        shutil.copy(folder / "source" / name, work)
    items, _ = manifest.parse(_write(case, work))
    for item in items:
        json.dumps([item.id, item.category, item.subcategory, *item.texts.values()]).encode()
        "".join([item.id, item.category, *item.texts.values()]).encode()
        _require(".." not in item.id.split("/"), "id")
        for path in (item.image, item.effect, *item.recordings.values()):
            _require(
                path is None or path.resolve().is_relative_to(work.resolve()), "a file outside"
            )
    splits.assign(items)


def _read_records(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data.items import Damaged
    from taichu_jax.data.records import Decoded

    shutil.copytree(folder / "data" / "fuzzed", work / "fuzzed")
    (work / "fuzzed" / case.name).write_bytes(case.data)
    good = Decoded(str(folder / "data"), "fuzzed", "train")
    found = Decoded(str(work), "fuzzed", "train")
    _require(found.entries == good.entries, "another index")
    harmed = 0
    for row in range(len(good.entries)):
        try:
            _require(found.texts(row) == good.texts(row), "other texts")
            _require(np.array_equal(found.canvas(row, 16), good.canvas(row, 16)), "another picture")
            for lang in good.entries[row].recordings:  # some are held out
                _require(
                    np.array_equal(found.wave(row, lang), good.wave(row, lang)), "another sound"
                )
        except Damaged:
            harmed += 1
    if harmed:
        raise Damaged(f"{harmed} records")


def _read_units(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data.units import Units

    shutil.copytree(folder / "units", work / "units")
    (work / "units" / case.name).write_bytes(case.data)
    good, found = Units(folder / "units"), Units(work / "units")
    _require(found.facts == good.facts, "other facts")
    for i in range(4):
        key = (f"fish {i}", "fr")
        _require(np.array_equal(found.of(key)[0], good.of(key)[0]), "other units")
        _require(found.of(key)[1] == good.of(key)[1], "another length")


def _read_package(case: Case, folder: pathlib.Path, work: pathlib.Path) -> None:
    from taichu_jax.data.archive import Limits, unpack_deb
    from taichu_jax.errors import UserError

    limits = Limits(total=10**6, one=10**5, members=100)
    with contextlib.suppress(UserError):
        unpack_deb(_write(case, work), work / "out", limits)
    _require({path.name for path in work.iterdir()} <= {"a.deb", "out"}, "a file outside")
    inside = list((work / "out").rglob("*")) if (work / "out").exists() else []
    _require(not any(path.is_symlink() for path in inside), "a link")
    _require(sum(path.stat().st_size for path in inside if path.is_file()) <= 10**6, "too much")
    if not inside:
        raise UserError("nothing unpacked")


_READERS = {
    **dict.fromkeys(("png", "jpeg", "gif", "webp", "bmp", "svg"), _read_picture),
    **dict.fromkeys(("wav", "ogg", "flac", "mp3"), _read_sound),
    "text": _read_text,
    "manifest": _read_manifest,
    "record": _read_records,
    "units": _read_units,
    "deb": _read_package,
}


# ------------------------------------------------------------------------------------- running


def cases(files: dict[str, list[tuple[str, bytes]]], seed: int, count: int) -> Iterator[Case]:
    """Damaged files, the formats in turn; each depends on (seed, its number) alone."""
    kinds = sorted(files)
    for number in range(count):
        yield one(files, seed, number, kinds[number % len(kinds)])


def one(files: dict[str, list[tuple[str, bytes]]], seed: int, number: int, kind: str) -> Case:
    """A damaged file of a format."""
    rng = np.random.default_rng([seed, number])
    name, data = files[kind][int(rng.integers(len(files[kind])))]
    return Case(number, kind, name, damaged(data, kind, rng))


def _child(folder: str, pipe: multiprocessing.connection.Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while (case := pipe.recv()) is not None:
        try:
            outcome = read(case, pathlib.Path(folder))
        except BaseException as error:  # the outcome that is looked for
            outcome = f"{type(error).__name__}: {error}"
        pipe.send(outcome)


class _Reader:
    """A child process that reads one file after the other, and is replaced when it dies or hangs."""

    def __init__(self, folder: pathlib.Path, seconds: float):
        self._folder, self._seconds = folder, seconds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_child, args=(str(self._folder), other), daemon=True)
        self._process.start()
        other.close()

    def outcome(self, case: Case) -> str:
        """What came of a file."""
        self._pipe.send(case)
        try:
            if self._pipe.poll(self._seconds):
                return self._pipe.recv()
            self._process.kill()
            outcome = f"took longer than {self._seconds} s"
        except EOFError:
            self._process.join()
            outcome = f"the process died ({self._process.exitcode})"
        self._process.join()
        self._start()
        return outcome

    def close(self) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join()


def run(count: int, seed: int, seconds: float, keep: pathlib.Path) -> dict[str, Any]:
    """Reads so many damaged files; returns the counts by format and outcome."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures, started, longest = [], time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        files = originals(folder)
        reader = _Reader(folder, seconds)
        for case in cases(files, seed, count):
            begun = time.monotonic()
            outcome = reader.outcome(case)
            longest = max(longest, time.monotonic() - begun)
            if outcome not in ("decoded", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"{seed}-{case.number}-{pathlib.Path(case.name).name}"
                kept.write_bytes(case.data)
                failures.append(
                    {"seed": seed, "case": case.number, "kind": case.kind, "what": outcome}
                )
                print(f"FAILURE --seed {seed} --case {case.number} ({kept}): {outcome}", flush=True)
                outcome = "failed"
            counts[case.kind][outcome] += 1
            if (case.number + 1) % 500 == 0:
                spent = time.monotonic() - started
                left = spent / (case.number + 1) * (count - case.number - 1)
                print(
                    f"{case.number + 1:,} of {count:,}, about {math.ceil(left / 60)} minutes left",
                    flush=True,
                )
        reader.close()
    return {
        "cases": count,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "longest case, seconds": round(longest, 1),
        "counts": {
            kind: {name: row[name] for name in ("decoded", "refused", "failed")}
            for kind, row in sorted(counts.items())
        },
        "failures": failures,
    }


def main(arguments: list[str]) -> int:
    """Exit code 1: something failed."""
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--keep", type=pathlib.Path, default=pathlib.Path("runs/fuzz"))
    parser.add_argument("--json", type=pathlib.Path, default=here / "fuzz.json")
    args = parser.parse_args(arguments)
    if args.case is not None:
        with tempfile.TemporaryDirectory() as temporary:
            files = originals(pathlib.Path(temporary))
            kind = sorted(files)[args.case % len(files)]
            print(read(one(files, args.seed, args.case, kind), pathlib.Path(temporary)))
        return 0
    result = run(args.cases, args.seed, args.seconds, args.keep)
    args.json.write_text(json.dumps(result, indent=1) + "\n", "utf8")
    for kind, row in result["counts"].items():
        print(f"{kind:9}", *(f"{name} {number:5,}" for name, number in row.items()))
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
