"""Starts one run again and again, killed each time at another instant; the last time it finishes.

python -m tests.training.killed RUN_DIR [INSTANT ...], with an INSTANT like 'torn_line:5'. Every start
is a process of its own, forked before JAX has touched a device.
"""

import os
import pathlib
import signal
import sys
import threading
import time

import jax

from taichu_jax.training import checkpoint, directory, experiment, files, metrics, runtime
from taichu_jax.training.loop import train
from tests.training import tiny


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after_step(count: int) -> None:
    """Between two steps, with losses that are not written yet."""
    add = metrics.Meter.add

    def dying(self, step, values):
        add(self, step, values)
        if step + 1 >= count:
            die()

    metrics.Meter.add = dying


def torn_line(count: int) -> None:
    """In the middle of a line of losses.jsonl."""
    append = files.JsonLines.append

    def dying(self, rows):
        if rows and self._file.name.endswith("losses.jsonl") and rows[-1]["step"] >= count:
            self._file.write('{"step": 4, "lo')
            self._file.flush()
            die()
        append(self, rows)

    files.JsonLines.append = dying


def in_save(count: int) -> None:
    """While Orbax writes, under a temporary name."""
    save = checkpoint.Checkpoints.save

    def dying(self, state, step, metadata):
        def watch():
            while not list(self.folder.glob(f"{step}*")):
                time.sleep(0.0005)
            die()

        if step >= count:
            self.wait()
            threading.Thread(target=watch, daemon=True).start()
        save(self, state, step, metadata)
        if step >= count:
            self.wait()

    checkpoint.Checkpoints.save = dying


def before_seal(count: int) -> None:
    """After Orbax has finished, before the manifest is written."""
    seal = checkpoint.seal
    checkpoint.seal = lambda folder, step: die() if step >= count else seal(folder, step)


def in_seal(count: int) -> None:
    """While the manifest is written, under a temporary name."""
    seal = checkpoint.seal

    def dying(folder, step):
        if step >= count:
            os.replace = lambda *_: die()
        seal(folder, step)

    checkpoint.seal = dying


def in_prune(count: int) -> None:
    """While an old checkpoint is deleted: its seal is gone, and half of its files."""
    remove = checkpoint._remove

    def dying(path):
        if path.is_dir() and path.name.isdigit() and int(path.name) >= count:
            files = sorted(p for p in path.rglob("*") if p.is_file())
            for file in files[: len(files) // 2]:
                file.unlink()
            die()
        remove(path)

    checkpoint._remove = dying


def in_compaction(count: int) -> None:
    """While losses.jsonl is written anew on a resume, under a temporary name."""
    start = files.JsonLines.__init__

    def dying(self, path, keep):
        if keep(count) and path.name == metrics.LOSSES and path.exists():
            replace, os.replace = os.replace, lambda *_: die()
            start(self, path, keep)
            os.replace = replace  # there was nothing to cut off
            return
        start(self, path, keep)

    files.JsonLines.__init__ = dying


def in_config(count: int) -> None:
    """While config.json is written."""
    del count
    directory.write_whole = lambda path, text: (
        path.with_name("config.json.partial").touch(),
        die(),
    )


def in_compile(count: int) -> None:
    """While the step is compiled for the first time, `count` milliseconds after the beginning."""
    jax.config.update("jax_enable_compilation_cache", False)
    step = experiment.Experiment.train_step

    def dying(self):
        timer = threading.Timer(count / 1000, die)
        timer.daemon = True
        timer.start()
        return step(self)

    experiment.Experiment.train_step = dying


def in_restore(count: int) -> None:
    """While a checkpoint is read."""
    split = checkpoint._split

    def dying(state):
        if isinstance(state.step, jax.ShapeDtypeStruct):  # what a restore is to be like
            die()
        return split(state)

    del count
    checkpoint._split = dying


def main(run_dir: str, instants: list[str]) -> None:
    for instant in [*instants, ""]:
        child = os.fork()
        if child == 0:
            name, _, count = instant.partition(":")
            if name:
                globals()[name](int(count))
            runtime.start()
            train(tiny.on_one_device(), pathlib.Path(run_dir))
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        expected = -signal.SIGKILL if instant else 0
        if os.waitstatus_to_exitcode(status) != expected:
            sys.exit(f"{instant or 'last start'}: ended with {status}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
