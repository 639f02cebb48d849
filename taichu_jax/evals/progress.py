"""How far an evaluation is, and about how long the rest will take."""

from __future__ import annotations

import json
import pathlib
import time

from rich.console import Console
from rich.status import Status

from taichu_jax.evals.evaluate import FOLDER, RESULTS

ASSUMED = 20.0  # seconds of an evaluation that nobody has timed yet


class Progress:
    """A line for each evaluation; use it with `with`.

    The estimate is from how long each took the last time, and from how this time compares so far.
    """

    def __init__(self, run_dir: pathlib.Path, names: tuple[str, ...]):
        self._names = names
        self._expected = {name: ASSUMED for name in names} | _last(run_dir, names)
        self._done: dict[str, float] = {}
        self._current: tuple[str, float] | None = None
        self._console = Console()
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        self._begin = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def say(self, name: str) -> None:
        """`name` begins now, and what ran before is done."""
        self._finish()
        self._current = name, time.monotonic()
        left = self._left()
        text = (
            f"{name} ({len(self._done) + 1} of {len(self._names)}), about "
            f"{time.strftime('%M:%S', time.gmtime(left))} left"
        )
        if self._console.is_terminal:
            self._status = self._console.status(text)
            self._status.start()
        else:
            print(text, flush=True)

    def _left(self) -> float:
        ahead = sum(self._expected[n] for n in self._names if n not in self._done)
        assumed = sum(self._expected[n] for n in self._done)
        return ahead * (sum(self._done.values()) / assumed if assumed else 1.0)

    def _finish(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._current is not None:
            name, since = self._current
            self._done[name] = time.monotonic() - since
            if self._console.is_terminal:
                self._console.print(f"{name}: {self._done[name]:.1f} s")
            self._current = None


def _last(run_dir: pathlib.Path, names: tuple[str, ...]) -> dict[str, float]:
    try:
        found = json.loads((run_dir / FOLDER / RESULTS).read_text("utf8"))["evaluations"]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: found[name]["seconds"] for name in names if name in found}
