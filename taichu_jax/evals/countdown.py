"""How far a job of several stages is, and about how long its present stage will take."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0  # seconds between two lines where there is no terminal


class Countdown:
    """A bar for each stage, or lines where there is no terminal; use it with `with`."""

    def __init__(self) -> None:
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._said = 0.0

    def __enter__(self) -> Countdown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, stage: str, done: int, total: int) -> None:
        """`done` of the stage's `total` steps are done."""
        now = time.monotonic()
        begins = stage not in self._tasks
        if begins:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
            self._begun[stage] = now, done
        self._bar.update(self._tasks[stage], completed=done)
        early = now - self._said < EVERY and done < total and not begins
        if self._console.is_terminal or early:
            return
        self._said = now
        print(f"{stage}: {done} of {total}{self._left(stage, now, done, total)}", flush=True)

    def _left(self, stage: str, now: float, done: int, total: int) -> str:
        since, first = self._begun[stage]
        if done in (first, total):
            return ""
        seconds = (now - since) / (done - first) * (total - done)
        return f", about {time.strftime('%H:%M:%S', time.gmtime(seconds))} left"
