"""How long it takes until something answers: imports, and `--help` of every launcher."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from experiments.speed.process import ROOT, Failed, environment

NAME = "start"
IMPORT_GOAL, HELP_GOAL = 1.0, 2.0  # seconds
# What is imported -> whether it has a goal; the others stand beside it.
IMPORTS = {
    "": False,
    "taichu_jax": True,
    "taichu_jax.training.loop": False,
    "jax, flax": False,
    "torch": False,
}


def commands() -> dict[str, tuple[list[str], float | None]]:
    """Label -> (arguments of Python, goal in seconds)."""
    found: dict[str, tuple[list[str], float | None]] = {
        f"import {name}" if name else "Python alone": (
            ["-c", f"import {name}" if name else "pass"],
            IMPORT_GOAL if goal else None,
        )
        for name, goal in IMPORTS.items()
    }
    for path in sorted((ROOT / "launch").glob("*.py")):
        found[f"launch/{path.name} --help"] = ([str(path), "--help"], HELP_GOAL)
    return found


def measure(
    repeats: int,
    scratch: pathlib.Path,
    cores: tuple[int, ...],
    wanted: dict[str, tuple[list[str], float | None]] | None = None,
) -> dict[str, Any]:
    """Label -> its times and goal, all commands in turn; the first round only warms the disk's cache.

    Raises:
      Failed: a command did not end with 0.
    """
    wanted = commands() if wanted is None else wanted
    times: dict[str, list[float]] = {label: [] for label in wanted}
    for turn in range(repeats + 1):
        for label, (arguments, _) in wanted.items():
            start = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment(scratch, cores, "cpu"),
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            seconds = time.perf_counter() - start
            if ended.returncode:
                said = ended.stderr.strip().splitlines() or ["nothing said"]
                raise Failed(f"{label}: ended with code {ended.returncode}: {said[-1]}")
            if turn:
                times[label].append(seconds)
    return {label: {"seconds": times[label], "goal": wanted[label][1]} for label in wanted}
