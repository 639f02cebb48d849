"""Runs the evaluations that a run's config names, from its checkpoint alone.

    RUN/evaluation/results.json       {"run": facts about the run, "evaluations": {name: ...}}
    RUN/evaluation/NAME/media/        pictures and recordings that an evaluation shows
    RUN/tensorboard/                  the first of these, with their scores

An evaluation is a frozen dataclass with `run(run, out_dir) -> dict of JSON values`; numbers that are
not finite become null. Files named in its results are relative to its own folder.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import platform
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.records import status_path
from taichu_jax.errors import UserError
from taichu_jax.evals.board import Board
from taichu_jax.training.files import write_whole
from taichu_jax.training.optim import paths

FOLDER, RESULTS = "evaluation", "results.json"


def evaluate(
    run,
    only: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Runs evaluations and writes results.json after each, so that none is lost.

    Args:
      run: a `training.run.Run`.
      only: names of evaluations; all by default. Results of the others are kept, if they are of the
        same step.
      say: told the name of each evaluation before it starts.

    Raises:
      UserError: the config names no evaluation, or not that one.
    """
    evaluations = run.experiment.evaluations
    if not evaluations:
        raise UserError(f"{run.path}: config.evaluations is empty, there is nothing to evaluate")
    for name in only:
        if name not in evaluations:
            raise UserError(f"--only {name}: no such evaluation; {choices(name, evaluations)}")
    folder = run.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    results = {"run": facts(run), "evaluations": _earlier(folder, run.step)}
    board = Board(run.path, run.step)
    for name, evaluation in evaluations.items():
        if only and name not in only:
            continue
        say(name)
        started = time.monotonic()
        shutil.rmtree(folder / name, ignore_errors=True)
        outcome = evaluation.run(run, folder / name)
        results["evaluations"][name] = {
            "kind": type(evaluation).__name__,
            "step": run.step,
            "seconds": time.monotonic() - started,
            "result": plain(outcome),
        }
        write_whole(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
        board.show(name, results["evaluations"][name]["result"], folder / name)
    board.close()
    return results


def facts(run) -> dict[str, Any]:
    """What a reader must know to place the numbers."""
    device = jax.devices()[0]
    return {
        "name": run.config.name or run.path.name,
        "path": str(run.path),
        "step": int(run.step),
        "steps": int(run.config.steps),
        "data": _data(run),
        "parameters": {
            name: sum(int(np.size(x)) for x in paths(tree).values())
            for name, tree in sorted(run.params.items())
        },
        "objectives": {k: type(v).__name__ for k, v in run.experiment.objectives.items()},
        "device": f"{device.platform} ({_processor()})"
        if device.platform == "cpu"
        else device.device_kind,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "jax": jax.__version__,
        "command": " ".join(["python", *sys.argv]),
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def plain(value: Any) -> Any:
    """JSON values of a tree of results; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _earlier(folder: pathlib.Path, step: int) -> dict[str, Any]:
    try:
        found = json.loads((folder / RESULTS).read_text("utf8"))["evaluations"]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: value for name, value in found.items() if value["step"] == step}


def _data(run) -> list[dict[str, Any]]:
    """The prepared data sets: name, kind ('package', 'source' or 'sample') and what they say."""
    streams = run.experiment.streams.values()
    names = {s.dataset for s in streams if hasattr(s, "dataset")}
    found = []
    for name in sorted(names):
        path = status_path(run.config.data.dir, name)
        if path.is_file():
            status = json.loads(path.read_text("utf8"))
            found.append({"name": name, "kind": status["kind"], "message": status["message"]})
    return found


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.machine()
