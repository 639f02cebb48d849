"""One live line on a terminal; one printed line per interval anywhere else."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from taichu_jax.training.non_finite import SKIPPED

_MOST_SHOWN = 5
_LONGEST = datetime.timedelta(days=9999)  # that is shown; a step after a long sleep looks slow


class ProgressLine:
    """Says how far a run is.

    Args:
      total, start: the run's last step, and where it begins now.
      names: the metrics to show, the most telling first; of more than `_MOST_SHOWN` the largest.
      quiet: says nothing (all processes but one).
    """

    def __init__(self, total: int, start: int, names: tuple[str, ...], quiet: bool = False):
        self._total, self._names, self._quiet = total, names, quiet
        self._live = None
        console = Console()
        if console.is_terminal and not quiet:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True)),
                console=console,
                refresh_per_second=4,
            )
            self._task = self._live.add_task(
                "compiling", total=total, completed=start, rate="", losses=""
            )
            self._live.start()

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def advance(self, step: int) -> None:
        if self._live is not None:
            self._live.update(self._task, completed=step, description="training")

    def log(self, step: int, means: Mapping[str, float]) -> None:
        """Shows an interval's means."""
        if len(self._names) > _MOST_SHOWN:  # once: they keep their places
            first, *others = self._names
            others.sort(key=lambda name: -abs(means.get(name, 0.0)))
            self._names = (first, *others[: _MOST_SHOWN - 1])
        shown = [f"{name} {means[name]:.4g}" for name in self._names if name in means]
        if means.get(SKIPPED):
            shown.append(f"{means[SKIPPED]:.0f} steps skipped")
        rate = f"{means['rate']:.3g} steps/s" if "rate" in means else "compiled"
        if self._live is not None:
            self._live.update(self._task, rate=rate, losses=", ".join(shown))
        elif not self._quiet:
            if means["loader_wait"] > 0.05:
                shown.append(f"waits for data {means['loader_wait']:.0%}")
            shown.append(rate)
            if "rate" in means:
                left = (self._total - step) / means["rate"]
                left = min(round(left), _LONGEST.total_seconds())
                shown.append(f"{datetime.timedelta(seconds=left)} left")
            print(", ".join([f"step {step}/{self._total}", *shown]), flush=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
        sys.stdout.flush()
