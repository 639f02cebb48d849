"""Runs the tasks of one or more encoders and keeps the numbers.

OUT/results.json   {"source", "data", "settings", "networks": {name: {"modality", "layers", "rate",
                   "tasks": {name: see tasks/base.py}}}, "left_out": {"network/task": why}}
OUT/report.html    the same to look at
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.evals.evaluate import RESULTS, plain
from taichu_jax.probing.collect import BATCH
from taichu_jax.probing.encoder import Encoder, parameters
from taichu_jax.probing.examples import Examples, Harm
from taichu_jax.probing.tasks import NO_LABELS, PREPARED, available
from taichu_jax.probing.tasks.base import NOTHING_LEARNT, Study, Task
from taichu_jax.training.files import write_whole, writing

ALL = "all"


def plan(
    encoders: Sequence[Encoder], data: Callable[[str], Examples], names: Sequence[str]
) -> list[tuple[Encoder, Examples, str, Task]]:
    """What is computed, in order.

    Args:
      data: from a modality to the examples of it.
      names: of tasks, or 'all'.

    Raises:
      UserError: a task that none of the encoders and the data have.
    """
    found, known = [], {}
    for encoder in encoders:
        examples = data(encoder.modality)
        if examples.modality != encoder.modality:
            continue
        tasks = available(examples)
        known[encoder.modality] = list(tasks)
        wanted = [n for n in tasks if n in names or ALL in names]
        found += [(encoder, examples, name, tasks[name]) for name in wanted]
    if not known:
        have = sorted({encoder.modality for encoder in encoders})
        raise UserError(f"--data: is {examples.modality}, but the encoders read {', '.join(have)}")
    valid = "; ".join(f"{kind}: {', '.join(tasks)}" for kind, tasks in sorted(known.items()))
    every = [ALL, *(task for tasks in known.values() for task in tasks)]
    for name in names:
        if name in every:
            continue
        if name in NO_LABELS and not examples.own:
            raise UserError(
                f"--task {name}: {examples.name} {NO_LABELS[name]}; own data (--data) may; valid: {valid}"
            )
        hint = choices(name, every).partition("valid:")[0]
        raise UserError(f"--task {name}: no such task here; {hint}valid: {valid}")
    return found


def probe(
    work: Sequence[tuple[Encoder, Examples, str, Task]],
    out: Path,
    source: dict[str, Any],
    *,
    limit: int,
    scratch_steps: int,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Computes what `plan` says and writes results.json after each task, so that none is lost.

    A single task that the data do not allow is an error; among several it is left out, with the reason.
    """
    results: dict[str, Any] = {
        "source": source,
        "data": {},
        "settings": {"limit": limit, "scratch_steps": scratch_steps, "seed": seed},
        "networks": {},
        "left_out": {},
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for encoder, examples, name, task in work:
        facts = results["networks"].setdefault(encoder.name, _facts(encoder))
        harm = Harm(examples)
        started = time.monotonic()
        study = Study(
            encoder,
            examples,
            harm,
            limit=limit,
            scratch_steps=scratch_steps,
            seed=seed,
            say=functools.partial(_tell, say, f"{encoder.name}, {name}"),
        )
        try:
            found = task.run(study)
        except UserError as error:
            if len(work) == 1:
                raise
            results["left_out"][f"{encoder.name}/{name}"] = str(error)
        else:
            found["notes"] += [note for note in (harm.note(), *examples.notes) if note]
            if NOTHING_LEARNT not in found["notes"]:
                found["notes"].append(_scratch_note(scratch_steps))
            found["seconds"] = time.monotonic() - started
            facts["tasks"][name] = plain(found)
        results["data"][examples.modality] = examples.name
        with writing(out / RESULTS):
            text = json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False)
            write_whole(out / RESULTS, text + "\n")
    return results


def _scratch_note(steps: int) -> str:
    if not steps:
        return "nothing trained from scratch (--scratch_steps 0)"
    return f"trained from scratch: {steps:,} steps of {BATCH} examples"


def _tell(say: Callable[[str], None], where: str, text: str) -> None:
    say(f"{where}: {text}")


def _facts(encoder: Encoder) -> dict[str, Any]:
    return {
        "modality": encoder.modality,
        "layers": encoder.layer_names,
        "widths": encoder.widths,
        "rate": float(encoder.shapes.rate),
        "tokens": int(encoder.shapes.mask.shape[1]),
        "parameters": parameters(encoder.params),
        "tasks": {},
    }


def every_task() -> str:
    """The tasks of prepared data by kind, for help texts."""
    return "; ".join(f"{kind}: {', '.join(tasks)}" for kind, tasks in PREPARED.items())
