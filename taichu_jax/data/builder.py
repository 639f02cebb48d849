"""Prepares data once: decodes every file, writes ArrayRecord files through TFDS (no TensorFlow).

    DATA_DIR/NAME/1.0.0/        the TFDS data set, one record per picture
    DATA_DIR/NAME/index.json    what each record holds, so that streams need not read them all
    DATA_DIR/NAME/status.json   counts, hours, everything left out and why; size and sha256 of the rest

All of it is made in DATA_DIR/.NAME.partial, brought to the disk, and put in place by renaming: whenever
the process is killed, the data set is the old one, the new one, or not there.

A record: id, concept (int64; the same for pictures of the same thing, in all splits), category,
subcategory, image (PNG, RGBA, longest side <= 256, or empty), texts [{lang, text}], recordings
[{lang, audio}] and effect (FLAC, 16 kHz, mono; or empty).
"""

import collections
import concurrent.futures
import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress
from rich.table import Table

from taichu_jax.data import audio, fetch, images, manifest, stamps
from taichu_jax.data.items import Damaged, Item, Skipped
from taichu_jax.data.records import (
    VERSION,
    check_files,
    folder_of,
    index_path,
    open_records,
    read_status,
    seal,
    status_path,
)
from taichu_jax.data.splits import assign
from taichu_jax.errors import UserError

STAMPS = "tuxpaint_stamps"
_FORMAT = 2  # part of the fingerprint: raise it when records of the same files change
_IN_FLIGHT = 64  # items decoded ahead of the writer

Status = dict[str, Any]


def prepare_stamps(data_dir: str | Path, source: str | Path | None = None) -> Status:
    """Fetches the stamps and prepares them as `tuxpaint_stamps`; does nothing if that is done.

    Prints which data these are (package, source or sample) before anything else.

    Raises:
      UserError: `source` holds no stamps.
    """
    with _alone(Path(data_dir)):
        found = fetch.collection(data_dir, source)
        print(found.message, flush=True)
        items, skipped = stamps.parse(found.path)
        return _prepare(Path(data_dir), STAMPS, found.kind, found.message, items, skipped)


def prepare_manifest(
    data_dir: str | Path, name: str, path: str | Path, root: str | Path | None = None
) -> Status:
    """Prepares the data of a JSON-lines manifest (see `manifest.py`) under `name`.

    Args:
      root: the folder below which all its files must lie; None: the manifest's.

    Raises:
      UserError: a bad name or manifest.
    """
    if not name.isidentifier() or not name.islower() or name == STAMPS:
        raise UserError(f"name {name!r}: must be lower-case letters, digits, _; not {STAMPS}")
    with _alone(Path(data_dir)):
        message = f"data: {path} (source)"
        print(message, flush=True)
        items, skipped = manifest.parse(Path(path), None if root is None else Path(root))
        return _prepare(Path(data_dir), name, "source", message, items, skipped)


def summary(status: Status) -> Table:
    """A table of what each split holds, for the terminal."""
    table = Table(
        title=f"{status['name']} ({status['kind']}): texts and voices by number of languages"
    )
    for column in ("split", "pictures", "texts", "voices", "minutes"):
        table.add_column(column, justify="left" if column == "split" else "right", no_wrap=True)
    for split, counts in status["splits"].items():
        spoken = sum(1 for language in counts["languages"].values() if language["recordings"])
        written = sum(1 for language in counts["languages"].values() if language["texts"])
        table.add_row(
            split,
            f"{counts['pictures']:,}",
            f"{counts['texts']:,} in {written}",
            f"{counts['recordings']:,} in {spoken}",
            f"{counts['minutes']:.1f}",
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in status["skipped_counts"].items())
    table.caption = f"left out: {reasons or 'nothing'}; each one is named in status.json"
    return table


# --------------------------------------------------------------------------------- preparing


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Waits until no other process prepares data here; the system frees the lock of a dead one."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with open(data_dir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare(
    data_dir: Path, name: str, kind: str, message: str, items: list[Item], skipped: list[Skipped]
) -> Status:
    staging, old = _asides(data_dir, name)
    if old.exists() and not folder_of(data_dir, name).exists():
        old.rename(folder_of(data_dir, name))  # killed between the two renamings
    for path in (staging, old):
        shutil.rmtree(path, ignore_errors=True)
    fingerprint = _fingerprint(kind, items)
    if (status := _done(data_dir, name, fingerprint)) is not None:
        return status
    started = time.monotonic()
    writer = _Writer(items, skipped)
    _build(staging, name, writer)
    index, splits = _read_back(staging, name, writer.splits)
    _write_json(index_path(staging, name), index)
    left_out = sorted(set(writer.skipped))
    status = {
        "name": name,
        "kind": kind,
        "message": message,
        "fingerprint": fingerprint,
        "seconds": round(time.monotonic() - started, 1),
        "hours": sum(counts["minutes"] for counts in splits.values()) / 60,
        "splits": splits,
        "skipped_counts": dict(collections.Counter(s.reason for s in left_out).most_common()),
        "skipped": [[s.path, s.reason] for s in left_out],
        "files": seal(folder_of(staging, name)),
    }
    _write_json(status_path(staging, name), status)
    _put_in_place(staging, data_dir, name)
    return status


def _asides(data_dir: Path, name: str) -> tuple[Path, Path]:
    """Where a data set is made, and where the one before it is put meanwhile."""
    return data_dir / f".{name}.partial", data_dir / f".{name}.old"


def _done(data_dir: Path, name: str, fingerprint: str) -> Status | None:
    """The report of what is there already, made from the same files and whole to the last bit."""
    try:
        status = read_status(data_dir, name)
        if status is None or status["fingerprint"] != fingerprint:
            return None
        check_files(data_dir, name, status, whole=True)
    except UserError as error:
        print(f"{error}: doing so", flush=True)
        return None
    return status


def _put_in_place(staging: Path, data_dir: Path, name: str) -> None:
    """Replaces the data set by the finished one."""
    new, (_, old) = folder_of(staging, name), _asides(data_dir, name)
    for path in [*new.rglob("*"), new]:  # what is renamed must be on the disk before its name is
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    final = folder_of(data_dir, name)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(staging, ignore_errors=True)


def _fingerprint(kind: str, items: list[Item]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {VERSION} {kind}".encode())
    for item in items:
        for path in (item.image, item.effect, *item.recordings.values()):
            if path:
                stat = path.stat()
                changed = f"{path} {stat.st_size} {stat.st_mtime_ns}"
                digest.update(changed.encode(errors="surrogateescape"))
        words = (item.id, item.texts, list(item.recordings), item.category, item.subcategory)
        digest.update(json.dumps([*words, item.split]).encode())
    return digest.hexdigest()


class _Writer:
    """Turns items into records, split by split, in parallel; keeps account of what is left out."""

    def __init__(self, items: list[Item], skipped: list[Skipped]):
        self.splits = assign(items)
        self.skipped = list(skipped)
        keys = sorted({item.concept for item in items})
        self._concepts = {key: number for number, key in enumerate(keys)}

    def records(self, split: str, advance: Any) -> Iterator[dict[str, Any]]:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for record, skipped in _ordered(pool, self._record, self.splits[split]):
                self.skipped += skipped
                if record is not None:
                    yield record
                advance()

    def _record(self, item: Item) -> tuple[dict[str, Any] | None, list[Skipped]]:
        skipped: list[Skipped] = []

        def sound(path: Path | None) -> bytes:
            return _encoded(path, lambda p: audio.encode_flac(audio.decode(p)), skipped)

        image = _encoded(item.image, _png, skipped)
        voices = {lang: sound(path) for lang, path in sorted(item.recordings.items())}
        voices = {lang: voice for lang, voice in voices.items() if voice}
        texts = dict(sorted(item.texts.items()))
        if not (image or voices or texts):
            return None, [*skipped, Skipped(item.id, "nothing left of this record")]
        record = {
            "id": item.id,
            "concept": self._concepts[item.concept],
            "category": item.category,
            "subcategory": item.subcategory,
            "image": image,
            "texts": [{"lang": lang, "text": text} for lang, text in texts.items()],
            "recordings": [{"lang": lang, "audio": voice} for lang, voice in voices.items()],
            "effect": sound(item.effect),
        }
        return record, skipped


def _png(path: Path) -> bytes:
    return images.encode_png(images.visible(images.decode(path)))


def _encoded(path: Path | None, encode: Any, skipped: list[Skipped]) -> bytes:
    if path is None:
        return b""
    try:
        return encode(path)
    except Damaged as damage:
        skipped.append(Skipped(str(path), str(damage)))
        return b""


def _ordered(pool: concurrent.futures.Executor, work: Any, items: Iterable[Any]) -> Iterator[Any]:
    """pool.map, but with at most _IN_FLIGHT results waiting, so that memory stays bounded."""
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= _IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _build(data_dir: Path, name: str, writer: _Writer) -> None:
    import tensorflow_datasets as tfds

    data = tfds.features.Tensor(shape=(), dtype=np.bytes_)
    text = tfds.features.Text()
    features = {
        "id": text,
        "concept": tfds.features.Scalar(np.int64),
        "category": text,
        "subcategory": text,
        "image": data,
        "texts": tfds.features.Sequence({"lang": text, "text": text}),
        "recordings": tfds.features.Sequence({"lang": text, "audio": data}),
        "effect": data,
    }

    class Records(  # type: ignore[call-arg]  # the base class is not typed
        tfds.core.GeneratorBasedBuilder, skip_registration=True
    ):
        """One record per picture."""

        VERSION = tfds.core.Version(VERSION)

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,  # sorted by id; the streams shuffle
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager  # everything is here already
            return {split: self._generate_examples(split) for split in writer.splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
            return enumerate(writer.records(split, lambda: progress.advance(task)))

    Records.name = name
    tfds.disable_progress_bar()  # ours counts over all splits and knows how many there are
    total = sum(map(len, writer.splits.values()))
    with Progress(transient=True) as progress:
        task = progress.add_task(f"preparing {name}", total=total)
        with contextlib.redirect_stdout(io.StringIO()):  # two lines about unknown sizes
            Records(data_dir=str(data_dir), file_format="array_record").download_and_prepare()


def _read_back(data_dir: Path, name: str, splits: Iterable[str]) -> tuple[Any, Any]:
    """Reads every record once: proof that they can be read, the index, and the counts."""
    index: dict[str, list[Any]] = {}
    counts: dict[str, Any] = {}
    categories: set[str] = set()
    for split in splits:
        languages: dict[str, Any] = collections.defaultdict(
            lambda: {"texts": 0, "recordings": 0, "minutes": 0.0}
        )
        index[split] = []
        for record in open_records(data_dir, name, split):
            for lang in record.texts:
                languages[lang]["texts"] += 1
            for lang, voice in record.recordings.items():
                languages[lang]["recordings"] += 1
                languages[lang]["minutes"] += audio.flac_samples(voice) / audio.RATE / 60
            categories.add(record.category)
            row = [record.id, record.concept, record.category]
            index[split].append(
                [*row, list(record.texts), list(record.recordings), bool(record.image)]
            )
        counts[split] = {
            "records": len(index[split]),
            "pictures": sum(row[-1] for row in index[split]),
            **{
                key: sum(count[key] for count in languages.values())
                for key in ("texts", "recordings", "minutes")
            },
            "languages": dict(sorted(languages.items())),
        }
    return {"categories": sorted(categories), "splits": index}, counts


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf8")
    partial.replace(path)
