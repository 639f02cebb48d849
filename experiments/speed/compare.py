"""One workload: both sides, the same first loss, then turn by turn."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pathlib
import statistics
from typing import Any

from experiments.speed.medians import agree, ratio
from experiments.speed.process import Failed, Side
from experiments.speed.workloads.base import Workload

TOLERANCE = 1e-3  # of the first losses
WARM, PROBED, PEAKS = 2, 3, 3  # steps before what counts; steps of every mode; looks at the peak


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says.

    Attributes:
      size: 'tiny' or 'base'.
      repeats: turns that count.
      cores: that both sides run on.
      device: 'cpu' or 'gpu'.
      modes: ways to run PyTorch, of which the fastest is compared.
    """

    size: str
    repeats: int
    cores: tuple[int, ...]
    device: str
    modes: tuple[str, ...]


class Refused(Exception):
    """The two sides do not compute the same."""


class Theirs:
    """PyTorch's process, in one mode at a time."""

    def __init__(self, job: dict[str, str], scratch: pathlib.Path, cores: tuple[int, ...]):
        self._start = lambda mode: Side(job | {"side": "theirs", "mode": mode}, scratch, cores)
        self._side: Side | None = None
        self.mode = ""

    def use(self, mode: str) -> Side:
        """A fresh process in this mode, in place of the one before."""
        self.close()
        self._side, self.mode = self._start(mode), mode
        return self._side

    def close(self) -> None:
        if self._side is not None:
            self._side.close()
            self._side = None


def compare(workload: Workload, options: Options, scratch: pathlib.Path) -> dict[str, Any]:
    """A row of the results; with 'refused' or 'failed' where there is nothing to compare."""
    sizes = workload.sizes(options.size, options.device)
    row: dict[str, Any] = {
        "label": workload.label,
        "unit": workload.unit,
        "units": workload.units(sizes),
        "sizes": sizes,
        "goal": workload.goal,
        "memory_goal": workload.memory_goal,
        "same_work": workload.same_work,
        "date": datetime.date.today().isoformat(),
    }
    try:
        return row | _measured(workload, options, scratch)
    except Refused as error:
        return row | {"refused": str(error)}
    except Failed as error:
        return row | {"failed": str(error)}


def _measured(workload: Workload, options: Options, scratch: pathlib.Path) -> dict[str, Any]:
    job = {
        "workload": workload.name,
        "size": options.size,
        "device": options.device,
        "folder": str(scratch / "model"),
    }
    modes, tried = workload.modes(options.modes), {}
    with contextlib.ExitStack() as closing:
        theirs = Theirs(job, scratch, options.cores)
        closing.callback(theirs.close)
        their = theirs.use(modes[0])  # it writes the weights that ours reads
        ours = closing.enter_context(Side(job | {"side": "ours"}, scratch, options.cores))
        first = ours.ask("first_loss"), their.ask("first_loss")
        _check(0, *first)
        if len(modes) > 1:
            best, tried = _best(theirs, modes)
            their = theirs.use(best)
            their.ask("first_loss")
        losses = _warm(ours, their)
        if workload.same_steps(options.device):
            for number in sorted(losses[0].keys() & losses[1].keys()):
                _check(number, losses[0][number], losses[1][number])
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.repeats):
            for side, taken in zip((ours, their), times, strict=True):
                taken.append(side.ask("step")["seconds"])
        memory = ours.ask("memory"), their.ask("memory")
        peaks = [(ours.ask("peak"), their.ask("peak")) for _ in range(PEAKS)]
    found = ratio(*times)
    return {
        "first_losses": first,
        "ratio": found._asdict(),
        "peak": max(map(max, peaks)),
        "ours": ours.facts | {"seconds": times[0], "memory": memory[0]},
        "theirs": their.facts
        | {
            "mode": theirs.mode,
            "tried": tried,
            "first_step": losses[2],
            "seconds": times[1],
            "memory": memory[1],
        },
    }


def _check(number: int, ours: float, theirs: float) -> None:
    if not agree(ours, theirs, TOLERANCE):
        which = "first losses" if number == 0 else f"losses after {number} updates"
        raise Refused(f"{which} differ: ours {ours:.6g}, PyTorch {theirs:.6g}")


def _best(theirs: Theirs, modes: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """(the fastest mode, mode -> median seconds of some steps or why it failed).

    Raises:
      Failed: none works.
    """
    tried: dict[str, Any] = {}
    for mode in modes:
        try:
            side = theirs.use(mode)
            side.ask("first_loss")
            side.ask("step")
            tried[mode] = statistics.median(side.ask("step")["seconds"] for _ in range(PROBED))
        except Failed as error:
            tried[mode] = str(error)
    worked = {mode: seconds for mode, seconds in tried.items() if not isinstance(seconds, str)}
    if not worked:
        raise Failed("; ".join(map(str, tried.values())))
    return min(worked, key=lambda mode: worked[mode]), tried


def _warm(ours: Side, theirs: Side) -> tuple[dict[int, float], dict[int, float], float]:
    """(our losses by the number of updates before them, theirs, seconds of their first step)."""
    found: tuple[dict[int, float], dict[int, float]] = ({}, {})
    first_step = 0.0
    for turn in range(WARM):
        for side, losses in zip((ours, theirs), found, strict=True):
            step = side.ask("step")
            if "number" in step:
                losses[step["number"]] = step["loss"]
        if turn == 0:
            first_step = step["seconds"]
    return *found, first_step
