"""What a run writes down: every step's losses, and means of all metrics at intervals.

    RUN/losses.jsonl     one line per step: {"step": 0, "loss": 5.1, "mlm/loss": 5.1, ...}; null in a
                         step that was skipped, for what was not finite
    RUN/metrics.jsonl    one line per interval: {"step": 20, "time": ..., "rate": ..., "loss": ...}
    RUN/tensorboard/     the same means for TensorBoard, and the first batch to look at and listen to

`step` counts from 0 in losses.jsonl (the update that starts from `state.step`); in metrics.jsonl it
is the number of updates done. A run that was killed and resumed leaves the same losses.jsonl as one
that was not: lines are on the disk before the checkpoint that follows them, and a run that resumes
from a checkpoint first cuts off what comes after it.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.training.board import Board
from taichu_jax.training.files import JsonLines
from taichu_jax.training.media import show_batch
from taichu_jax.training.non_finite import SKIPPED, is_watched

MOST_IN_FLIGHT = 2  # steps that are given to the device before the oldest of them is done
LOSSES, METRICS, TENSORBOARD = "losses.jsonl", "metrics.jsonl", "tensorboard"


class Meter:
    """Collects the metrics of steps without waiting for them."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._steps: list[tuple[int, jax.Array]] = []
        self._in_flight: collections.deque[jax.Array] = collections.deque()

    def add(self, step: int, metrics: Mapping[str, tuple[jax.Array, jax.Array]]) -> None:
        """Takes a step's metrics; waits only when the device is `MOST_IN_FLIGHT` steps behind."""
        self._names = sorted(metrics)
        packed = _pack(metrics)
        packed.copy_to_host_async()
        self._steps.append((step, packed))
        self._in_flight.append(packed)
        if len(self._in_flight) > MOST_IN_FLIGHT:
            self._in_flight.popleft().block_until_ready()

    def idle(self) -> bool:
        """Whether the device has finished every step that it was given."""
        return not self._in_flight or self._in_flight[-1].is_ready()  # type: ignore[attr-defined]

    def take(self) -> tuple[list[dict[str, float]], dict[str, float]]:
        """(losses of every step, means of all metrics) since the last call; waits for the device.

        Steps that were skipped are counted, and are in no mean.
        """
        numbers = [step for step, _ in self._steps]
        # [steps, metrics, (sum, count)]; sums of float32 are added in float64.
        values = np.stack(jax.device_get([packed for _, packed in self._steps])).astype(np.float64)
        self._steps.clear()
        self._in_flight.clear()
        losses = [
            {"step": number}
            | {k: float(s / n) for k, (s, n) in zip(self._names, row, strict=True) if is_watched(k)}
            for number, row in zip(numbers, values, strict=True)
        ]
        counts = {}
        if SKIPPED in self._names:
            skipped = values[:, self._names.index(SKIPPED), 0] > 0
            values, counts = values[~skipped], {SKIPPED: int(skipped.sum())}
        totals = zip(self._names, values.sum(0), strict=True)
        return losses, {k: float(s / n) for k, (s, n) in totals if n != 0} | counts


class Journal:
    """The files of a run's metrics.

    Args:
      run_dir: where they lie.
      start: updates that are done already; what the files say beyond is cut off.

    Attributes:
      notes: what is to be told of the files.

    Raises (everything that writes):
      UserError: a file cannot be written.
    """

    def __init__(self, run_dir: Path, start: int):
        self._losses = JsonLines(run_dir / LOSSES, lambda step: step < start)
        self._metrics = JsonLines(run_dir / METRICS, lambda step: step <= start)
        self._board = Board(run_dir / TENSORBOARD, purge_step=start + 1 if start else None)
        self.missing = start - self._losses.rows
        self.notes = []
        for name, file in ((LOSSES, self._losses), (METRICS, self._metrics)):
            if file.damaged:
                self.notes.append(f"{name}: {file.damaged} damaged lines are dropped")
        if self.missing:
            self.notes.append(f"{self.missing} of the {start} steps so far lack their records")

    def write(
        self,
        losses: Sequence[Mapping[str, float | None]],
        means: Mapping[str, float] | None,
    ) -> None:
        """Adds an interval; `means` holds its step and time too, None where there are none."""
        self._losses.append(losses)
        if means is None:
            return
        self._metrics.append([means])
        for name, value in means.items():
            if name not in ("step", "time"):
                self._board.add_scalar(name, value, int(means["step"]), means["time"])
        self._board.flush()

    def show(self, batch: Mapping[str, Mapping[str, jax.Array]]) -> None:
        """Adds pictures and sound of the run's first batch."""
        show_batch(self._board, batch, 0)

    def close(self) -> None:
        self._losses.close()
        self._metrics.close()
        self._board.close()


class Clock:
    """Steps per second and the loader's share of the time, over an interval."""

    def __init__(self):
        self.restart(0, 0.0)

    def restart(self, step: int, lost: float) -> None:
        self._since, self._step, self._lost = time.monotonic(), step, lost

    def take(self, step: int, lost: float) -> dict[str, float]:
        """The interval's numbers, at `step` updates done and `lost` seconds waited for data."""
        seconds = time.monotonic() - self._since
        result = {"loader_wait": 0.0}
        if seconds > 0:  # a clock may stand still, or be set back
            result["loader_wait"] = min(max(lost - self._lost, 0.0) / seconds, 1.0)
        if seconds > 0 and step > self._step:  # else none was timed: a first step compiles
            result["rate"] = (step - self._step) / seconds
        self.restart(step, lost)
        return result


@jax.jit
def _pack(metrics: Mapping[str, tuple[jax.Array, jax.Array]]) -> jax.Array:
    """[metrics, 2] float32: one transfer instead of many."""
    return jnp.stack(
        [jnp.stack([jnp.float32(x) for x in metrics[name]]) for name in sorted(metrics)]
    )
