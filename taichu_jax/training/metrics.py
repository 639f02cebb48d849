"""What a run writes down: every step's losses, and means of all metrics at intervals.

    RUN/losses.jsonl     one line per step: {"step": 0, "loss": 5.1, "mlm/loss": 5.1, ...}
    RUN/metrics.jsonl    one line per interval: {"step": 20, "time": ..., "rate": ..., "loss": ...}
    RUN/tensorboard/     the same means for TensorBoard, and the first batch to look at and listen to

`step` counts from 0 in losses.jsonl (the update that starts from `state.step`); in metrics.jsonl it
is the number of updates done. A run that was killed and resumed leaves the same losses.jsonl as one
that was not: lines are on the disk before the checkpoint that follows them, and a run that resumes
from a checkpoint first cuts off what comes after it.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import SummaryWriter

from taichu_jax.errors import UserError
from taichu_jax.training.files import JsonLines
from taichu_jax.training.media import show_batch

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
        """(losses of every step, means of all metrics) since the last call; waits for the device."""
        numbers = [step for step, _ in self._steps]
        # [steps, metrics, (sum, count)]; sums of float32 are added in float64.
        values = np.stack(jax.device_get([packed for _, packed in self._steps])).astype(np.float64)
        self._steps.clear()
        self._in_flight.clear()
        losses = [
            {"step": number}
            | {k: float(s / n) for k, (s, n) in zip(self._names, row, strict=True) if _is_loss(k)}
            for number, row in zip(numbers, values, strict=True)
        ]
        totals = zip(self._names, values.sum(0), strict=True)
        return losses, {k: float(s / n) for k, (s, n) in totals if n != 0}


class Journal:
    """The files of a run's metrics.

    Args:
      run_dir: where they lie.
      start: updates that are done already; what the files say beyond is cut off.
    """

    def __init__(self, run_dir: Path, start: int):
        self._losses = JsonLines(run_dir / LOSSES, lambda row: row["step"] < start)
        self._metrics = JsonLines(run_dir / METRICS, lambda row: row["step"] <= start)
        self._board = SummaryWriter(
            str(run_dir / TENSORBOARD), purge_step=start + 1 if start else None
        )
        self.missing = start - self._losses.rows

    def write(self, losses: list[dict[str, float]], means: Mapping[str, float]) -> None:
        """Adds an interval; `means` holds its step and time too.

        Raises:
          UserError: a loss is not finite. What came before is written.
        """
        good = [row for row in losses if all(map(math.isfinite, row.values()))]
        first_bad = next((row for row in losses if row not in good), None)
        if first_bad is not None:
            good = [row for row in losses if row["step"] < first_bad["step"]]
        self._losses.append(good)
        if first_bad is not None:
            raise _not_finite(first_bad)
        self._metrics.append([means])
        for name, value in means.items():
            if name not in ("step", "time"):
                self._board.add_scalar(name, value, means["step"], means["time"])
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
        seconds = max(time.monotonic() - self._since, 1e-9)
        result = {"loader_wait": min((lost - self._lost) / seconds, 1.0)}
        if step > self._step:  # none was timed in an interval of one step that was compiled
            result["rate"] = (step - self._step) / seconds
        self.restart(step, lost)
        return result


@jax.jit
def _pack(metrics: Mapping[str, tuple[jax.Array, jax.Array]]) -> jax.Array:
    """[metrics, 2] float32: one transfer instead of many."""
    return jnp.stack(
        [jnp.stack([jnp.float32(x) for x in metrics[name]]) for name in sorted(metrics)]
    )


def _is_loss(name: str) -> bool:
    return name in ("loss", "gradient_norm") or name.endswith("/loss")


def _not_finite(row: Mapping[str, float]) -> UserError:
    bad = [k for k, v in row.items() if not math.isfinite(v)]
    names = [k.removesuffix("/loss") for k in bad if k.endswith("/loss")]
    if names:
        what = f"the loss of objective {', '.join(names)} is"
    else:
        what = f"{' and '.join(bad)} {'is' if len(bad) == 1 else 'are'}"
    return UserError(
        f"step {row['step']}: {what} not finite ({row[bad[0]]}); a lower learning rate or "
        "config.optimizer.clip may help"
    )
