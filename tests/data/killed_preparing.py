"""Prepares data in child processes that are killed, and looks at what is left.

python -m tests.data.killed_preparing DIR COUNT

Prints one JSON line per kill: [where it was killed, what was there then, what was there after the same
command had run again]: 'old', 'new', 'none', or what is wrong.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import time
import traceback

from taichu_jax.data import builder
from taichu_jax.data.records import Decoded, check_files, read_status

NAME = "killed"


def write(folder: pathlib.Path, words: str) -> pathlib.Path:
    """A manifest of eight texts."""
    lines = [json.dumps({"id": f"{i}", "texts": {"en": f"{words} {i}"}}) for i in range(8)]
    path = folder / f"{words}.jsonl"
    path.write_text("\n".join(lines))
    return path


def state(data: pathlib.Path) -> str:
    """What a data folder holds; seen by a child, since reading starts threads, which a fork loses."""
    answer = data.with_suffix(".state")
    assert child(lambda: answer.write_text(seen(data))) == 0
    return answer.read_text()


def seen(data: pathlib.Path) -> str:
    """'none', or which manifest's words the data set holds, every byte and record of it read."""
    try:
        status = read_status(data, NAME)
        if status is None:
            return "none"
        check_files(data, NAME, status, whole=True)
        words = set()
        for split in status["splits"]:
            source = Decoded(str(data), NAME, split)
            words |= {source.texts(row)["en"].split()[0] for row in range(len(source.entries))}
        (word,) = words
        return word
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def killed_at(number: int, counted: pathlib.Path | None = None) -> None:
    """Dies at the given call that changes names or files on the disk; keeps their names."""
    calls: list[str] = []

    def fatal(original):
        def call(*args, **kwargs):
            calls.append(original.__name__)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            if counted is not None:
                with open(counted, "w") as file:
                    json.dump(calls, file)
            return original(*args, **kwargs)

        return call

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
        setattr(os, name, fatal(getattr(os, name)))


def child(work) -> int:
    """Runs a function in a fork; its exit code, negative for a signal."""
    if (process := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder: pathlib.Path, count: int) -> None:
    """One line per kill."""
    import tensorflow_datasets  # noqa: F401  # once, and not in every child

    old, new = write(folder, "old"), write(folder, "new")
    started = time.monotonic()
    assert child(lambda: builder.prepare_manifest(folder / "whole", NAME, old)) == 0
    lasts = time.monotonic() - started
    assert state(folder / "whole") == "old"
    shutil.copytree(folder / "whole", folder / "counted")

    def counting():
        killed_at(0, folder / "calls")
        builder.prepare_manifest(folder / "counted", NAME, new)

    assert child(counting) == 0
    calls, chance = json.loads((folder / "calls").read_text()), random.Random(0)
    # The last two renamings put the new data set in the place of the old one.
    aside, placed = [i for i, name in enumerate(calls, start=1) if name == "rename"][-2:]
    numbers = [1, aside // 2, aside, placed, placed + 1, placed + 4, len(calls)]
    for number in [*numbers, *[None] * (count - len(numbers))]:
        data = folder / "data"
        shutil.copytree(folder / "whole", data)
        delay = chance.uniform(0.1, 0.9) * lasts

        def work(number=number, delay=delay):
            if number is None:  # at any moment
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                killed_at(number)
            builder.prepare_manifest(folder / "data", NAME, new)

        if child(work) == 0:
            where = "not"
        else:
            where = (
                f"any moment ({delay:.2f} s)"
                if number is None
                else f"call {number} of {len(calls)}"
            )
        left = state(data)
        assert child(lambda: builder.prepare_manifest(folder / "data", NAME, new)) == 0
        rest = sorted(path.name for path in data.iterdir())
        after = state(data) if rest == [".lock", NAME] else f"left behind: {rest}"
        print(json.dumps([where, left, after]), flush=True)
        shutil.rmtree(data)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
