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

from taichu_jax.training import checkpoint, files, metrics, runtime
from taichu_jax.training.loop import train
from tests.training import tiny


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after_step(count: int) -> None:
    """Between two steps, with losses that are not written yet."""
    add = metrics.Meter.add

    def dying(self, step, values):
        add(self, step, values)
        if step + 1 == count:
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
            while not list(self.folder.glob(f"{count}*")):
                time.sleep(0.0005)
            die()

        if step == count:
            self.wait()
            threading.Thread(target=watch, daemon=True).start()
        save(self, state, step, metadata)
        if step == count:
            self.wait()

    checkpoint.Checkpoints.save = dying


def before_seal(count: int) -> None:
    """After Orbax has finished, before the manifest is written."""
    seal = checkpoint.seal
    checkpoint.seal = lambda folder, step: die() if step == count else seal(folder, step)


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
