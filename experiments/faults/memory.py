"""Memory, files, threads and compilations of a long run, every 500 steps."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import time
from collections.abc import Callable

import jax

from experiments.faults import children
from taichu_jax.training import checkpoint, metrics
from taichu_jax.training.loop import train
from tests.training import tiny

EVERY, WARM = 500, 1000
MOST_GROWTH = 16.0  # MiB after warming up, of everything together
COMPILED = "/jax/core/compile/backend_compile_duration"


def soak(folder: pathlib.Path, steps: int, say: Callable[[str], None]) -> dict:
    """Trains `steps` steps in a process of its own."""
    rows, began = folder / "memory.json", time.monotonic()
    child = children.start(lambda: _watched(folder / "long", steps, rows), folder / "long.txt")
    shown = 0
    while children.alive(child):
        time.sleep(0.5)
        seen = json.loads(rows.read_text("utf8")) if rows.exists() else []
        if len(seen) > shown:
            shown, row = len(seen), seen[-1]
            left = (time.monotonic() - began) / row["step"] * (steps - row["step"])
            told = ", ".join(f"{key} {value:g}" for key, value in row.items())
            say(f"{told}, {left:.0f} s left")
    if child.code:
        raise SystemExit(f"the long run ended with {child.code}: {folder / 'long.txt'}")
    seen = json.loads(rows.read_text("utf8"))
    late = [row for row in seen if row["step"] > WARM]
    return {
        "steps": steps,
        "every": seen,
        "growth after warming up": {
            key: round(late[-1][key] - late[0][key], 2) for key in seen[0] if key != "step"
        },
        "seconds": round(time.monotonic() - began),
    }


def failures(result: dict) -> list[str]:
    """What a soak must not show."""
    grown = result["growth after warming up"]
    bad = [f"{key}: grew by {grown[key]}" for key in ("files", "compiled") if grown[key] > 0]
    if grown["MiB"] > MOST_GROWTH:
        bad.append(f"memory grew by {grown['MiB']} MiB")
    return bad


def _watched(run_dir: pathlib.Path, steps: int, out: pathlib.Path) -> None:
    rows: list[dict] = []
    saves: list[checkpoint.Checkpoints] = []
    compiled = 0
    add, save = metrics.Meter.add, checkpoint.Checkpoints.save

    def noting(self, *arguments):
        saves[:] = [self]
        save(self, *arguments)

    def listen(event, seconds, **_):
        nonlocal compiled
        compiled += event == COMPILED

    def measuring(self, step, values):
        add(self, step, values)
        if step % EVERY == EVERY // 2:
            for checkpoints in saves:
                checkpoints.wait()  # so that its files are closed
            gc.collect()
            rows.append({"step": step, **_now(), "compiled": compiled})
            partial = out.with_suffix(".partial")
            partial.write_text(json.dumps(rows), "utf8")
            partial.replace(out)

    metrics.Meter.add, checkpoint.Checkpoints.save = measuring, noting
    jax.monitoring.register_event_duration_secs_listener(listen)
    train(tiny.on_one_device(steps=steps, log_every=20, checkpoint_every=EVERY), run_dir)


def _now() -> dict[str, float]:
    pages = int(pathlib.Path("/proc/self/statm").read_text("utf8").split()[1])
    return {
        "MiB": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "maps": pathlib.Path("/proc/self/maps").read_bytes().count(b"\n"),
    }
