"""K-means over the recordings of a stream, in chunks that fit into memory, from where it stopped.

    DIR/work/settings.json     what this clustering is; another one may not go on with it
    DIR/work/chunk_N.npz       features of some recordings
    DIR/work/state.npz         the k-means estimator behind the last chunk
    DIR/units.npy ...          the result (data/units.py); work/ is then removed

Three stages: features of all recordings, chunk by chunk; several passes of mini-batch k-means (Sculley
2010, scikit-learn) over the chunks of the stream's own split; units of all splits. Each file is whole
or absent and all orders are drawn from the seed, so a program that was killed goes on and ends with
the units of one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taichu_jax.data.items import Damaged
from taichu_jax.data.records import index_path, load_index, status_path
from taichu_jax.data.streams import Recordings
from taichu_jax.data.units import INFO, open_units, write_units
from taichu_jax.errors import UserError
from taichu_jax.training.files import PARTIAL, write_whole

WORK, SETTINGS, STATE, LOCK = "work", "settings.json", "state.npz", "lock"

Say = Callable[[str, int, int], None]  # stage, steps of it that are done, steps it has


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How recordings are clustered.

    Attributes:
      clusters: number of units.
      passes: over the chunks.
      chunk: recordings in one.
      seed: of the first centres and of all orders.
    """

    clusters: int = 100
    passes: int = 5
    chunk: int = 256
    seed: int = 0

    def __post_init__(self):
        for name in ("clusters", "passes", "chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")


@dataclasses.dataclass(frozen=True)
class Voice:
    """One recording: its number in the data of its split, and its language."""

    split: str
    row: int
    id: str
    lang: str


def cluster(
    folder: Path, stream: Recordings, data_dir: str, features: Any, plan: Plan, say: Say
) -> dict[str, Any]:
    """Writes the units of all recordings of a stream, in every split; returns what they are.

    Does nothing if that is done. Languages, trimming and the choice of recordings are the stream's; its
    crops and augmentation play no part.

    Args:
      features: see evals/unit_features.py.

    Raises:
      UserError: the folder holds something else or is in use, or there are too few frames.
    """
    facts = {
        "rate": features.rate,
        "clusters": plan.clusters,
        "dataset": stream.dataset,
        "trim": stream.trim,
        **features.facts,
        "split": stream.split,
        "languages": list(stream.languages),
        "minutes": [stream.minutes, stream.minutes_seed],
        "passes": plan.passes,
        "chunk": plan.chunk,
        "seed": plan.seed,
    }
    with _alone(folder):
        facts["data"] = _fingerprint(data_dir, stream)
        if (folder / INFO).is_file():
            found = open_units(folder).facts
            _same(folder, found, facts | {"frames": found.get("frames")})
            shutil.rmtree(folder / WORK, ignore_errors=True)
            return found
        work = folder / WORK
        work.mkdir(exist_ok=True)
        if (work / SETTINGS).is_file():
            _same(work, json.loads((work / SETTINGS).read_text("utf8")), facts)
        write_whole(work / SETTINGS, json.dumps(facts, indent=1) + "\n")

        sources, chunks, fitted = _chunks(stream, data_dir, plan)
        for number, voices in enumerate(chunks):
            say("features", number, len(chunks))
            _extract(work, number, voices, sources, stream.trim, features)
        say("features", len(chunks), len(chunks))
        sizes = [int(_load(work, number, "counts").sum()) for number in range(len(chunks))]
        if sum(sizes[:fitted]) < plan.clusters:
            shutil.rmtree(work)  # another number may be tried at once
            raise UserError(
                f"--clusters {plan.clusters}: the recordings have {sum(sizes[:fitted])} frames only, "
                "each cluster needs one"
            )
        model = _fit(work, sizes[:fitted], plan, say)

        def rows() -> Iterator[tuple[str, str, int, np.ndarray]]:
            for number, voices in enumerate(chunks):
                say("units", number, len(chunks))
                yield from _label(work, number, voices, model)
            say("units", len(chunks), len(chunks))

        facts["frames"] = sum(sizes)
        write_units(folder, facts, model.cluster_centers_, sum(sizes), rows())
        shutil.rmtree(work)
    return facts


# -------------------------------------------------------------------------------------- stages


def _chunks(
    stream: Recordings, data_dir: str, plan: Plan
) -> tuple[dict[str, Any], list[list[Voice]], int]:
    """(data by split, recordings by chunk, how many of the first chunks the centres are fitted to).

    The recordings of the stream's split come first, in random order: they are sorted by language, and
    k-means on one language after the other would forget the first.
    """
    sources, chunks, fitted = {}, [], 0
    splits = json.loads(index_path(data_dir, stream.dataset).read_text("utf8"))["splits"]
    for split in [stream.split, *sorted(set(splits) - {stream.split})]:
        here = dataclasses.replace(stream, split=split)
        source = sources[split] = here.source(data_dir)
        voices = [
            Voice(split, row, source.entries[row].id, lang) for row, lang in here.select(source)
        ]
        if split == stream.split:
            order = np.random.default_rng([plan.seed, 0]).permutation(len(voices))
            voices = [voices[i] for i in order]
        chunks += [voices[i : i + plan.chunk] for i in range(0, len(voices), plan.chunk)]
        fitted = fitted or len(chunks)
    if not fitted:
        raise UserError(f"{stream.dataset}: split {stream.split!r} has no recording for {stream}")
    return sources, chunks, fitted


def _extract(
    work: Path, number: int, voices: Sequence[Voice], sources: Any, trim: bool, features: Any
) -> None:
    """Writes the features of one chunk, unless they are there: frames, counts, samples."""
    if _chunk_path(work, number).is_file():
        return
    waves, samples = [], []
    for voice in voices:
        source = sources[voice.split]
        try:
            wave = source.wave(voice.row, voice.lang, trim)
            waves.append(wave.astype(np.float32) * np.float32(1 / 32767))
            samples.append(len(wave))
        except Damaged as damage:  # training leaves it out as well
            source.report(voice.row, damage)
            samples.append(0)
    found = iter(features(waves))
    frames = [next(found) if count else None for count in samples]
    counts = [0 if x is None else len(x) for x in frames]
    whole = [x for x in frames if x is not None]
    _save(
        _chunk_path(work, number),
        frames=np.concatenate(whole) if whole else np.zeros((0, 1), np.float32),
        counts=np.array(counts, np.int64),
        samples=np.array(samples, np.int64),
    )


def _fit(work: Path, sizes: Sequence[int], plan: Plan, say: Say) -> Any:
    """The fitted estimator. Its state is saved behind every step."""
    from sklearn.cluster import MiniBatchKMeans

    # Batch size and no reassignment of small clusters as HuBERT's; without that, chance plays no part
    # behind the first centres, and the state is numbers only.
    model = MiniBatchKMeans(
        plan.clusters,
        init="k-means++",
        batch_size=10_000,
        compute_labels=False,
        reassignment_ratio=0.0,
        random_state=plan.seed,
    )
    steps, done = _steps(sizes, plan), 0
    if (work / STATE).is_file():
        state = _everything(work / STATE)
        done = int(state.pop("done"))
        vars(model).update(state)
    for i in range(done, len(steps)):
        say("k-means", i, len(steps))
        frames = np.concatenate([_load(work, number, "frames") for number in steps[i]])
        model.partial_fit(frames)
        _save(work / STATE, done=i + 1, **_numbers(model))
    say("k-means", len(steps), len(steps))
    return model


def _steps(sizes: Sequence[int], plan: Plan) -> list[list[int]]:
    """The chunks that each step reads: one, or as many as the first centres need."""
    steps: list[list[int]] = []
    for turn in range(plan.passes):
        order = np.random.default_rng([plan.seed, 1 + turn]).permutation(len(sizes))
        steps += [[int(number)] for number in order if sizes[number]]
    while sum(sizes[number] for number in steps[0]) < plan.clusters:
        steps[:2] = [steps[0] + steps[1]]
    return steps


def _label(
    work: Path, number: int, voices: Sequence[Voice], model: Any
) -> Iterator[tuple[str, str, int, np.ndarray]]:
    frames, counts = _load(work, number, "frames"), _load(work, number, "counts")
    units = model.predict(frames) if len(frames) else np.zeros(0, np.int32)
    ends = np.cumsum(counts)
    for voice, samples, count, end in zip(
        voices, _load(work, number, "samples"), counts, ends, strict=True
    ):
        yield voice.id, voice.lang, int(samples), units[end - count : end]


# --------------------------------------------------------------------------------------- files


def _chunk_path(work: Path, number: int) -> Path:
    return work / f"chunk_{number}.npz"


def _save(path: Path, **arrays: Any) -> None:
    """Writes arrays so that the file is whole or absent."""
    partial = path.with_name(path.name + PARTIAL)
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _load(work: Path, number: int, name: str) -> np.ndarray:
    with np.load(_chunk_path(work, number), allow_pickle=False) as content:
        return content[name]


def _everything(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as content:
        values = {name: content[name] for name in content.files}
    return {name: x.item() if x.ndim == 0 else x for name, x in values.items()}


def _numbers(model: Any) -> dict[str, Any]:
    """All that the estimator carries from chunk to chunk; its settings are made anew."""
    kinds = (np.ndarray, np.generic, int, float)
    settings = model.get_params()
    return {k: v for k, v in vars(model).items() if isinstance(v, kinds) and k not in settings}


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "a")  # noqa: SIM115 (open as long as it is held)
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"--to {folder}: another program is clustering in it") from error
        yield


def _same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    lines = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if lines:
        raise UserError(
            f"--to {folder}: holds other units ({'; '.join(lines)}); name another folder or remove it"
        )


def _fingerprint(data_dir: str, stream: Recordings) -> str:
    load_index(data_dir, stream.dataset, stream.split)  # says what is missing
    return json.loads(status_path(data_dir, stream.dataset).read_text("utf8"))["fingerprint"]
