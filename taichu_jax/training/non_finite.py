"""Steps whose loss or gradient is not finite: stopped at, or skipped.

    config.non_finite = "stop"     the run ends; the newest checkpoint is of a step before
    config.non_finite = "skip"     the step changes nothing but the step number (training/step.py);
                                   `config.non_finite_limit` of them in a row end the run

    RUN/non_finite/7.json    {"step": 7, "values": {"loss": "nan", ...}, "examples": {stream: [...]}}

`examples` are the batch's rows as numbers in `stream.examples(data_dir)`, of streams that have the
field `example`; of several processes each writes its own rows, all but the first to STEP-PROCESS.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.training.files import write_whole, writing

STOP, SKIP = POLICIES = ("stop", "skip")
FOLDER, FIELD = "non_finite", "example"
SKIPPED = "skipped_steps"  # a metric: (1, 1) from a step that was skipped, else (0, 1)
PyTree = Any
Row = dict[str, float]


def is_watched(metric: str) -> bool:
    """Whether this metric must be finite; it is recorded for every step."""
    return metric in ("loss", "gradient_norm") or metric.endswith("/loss")


def all_finite(metrics: Mapping[str, tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Whether every watched metric, a (sum, count), is finite; traceable."""
    watched = [jnp.divide(*metrics[name]) for name in sorted(metrics) if is_watched(name)]
    return jnp.isfinite(jnp.stack(watched)).all()


def choose(first: jax.Array, one: PyTree, other: PyTree) -> PyTree:
    """`one` if `first` is true, else `other`, bit for bit; traceable."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(first, a, b), one, other)


class NonFinite:
    """Looks at every step's losses, without waiting for any.

    Args:
      run_dir: of the run.
      policy: of `POLICIES`.
      limit: skipped steps in a row that end the run.
    """

    def __init__(self, run_dir: Path, policy: str, limit: int):
        self._folder = run_dir / FOLDER
        self._skips, self._limit = policy == SKIP, limit
        self._in_a_row = 0
        self._examples: dict[int, dict[str, jax.Array]] = {}

    def add(self, step: int, batch: Mapping[str, Mapping[str, jax.Array]]) -> None:
        """Remembers which examples a step sees, until `look`."""
        self._examples[step] = {
            name: fields[FIELD] for name, fields in batch.items() if FIELD in fields
        }

    def look(self, rows: list[Row]) -> tuple[list[dict[str, float | None]], UserError | None]:
        """(rows to write down, why the run must end).

        Of a skipped step, numbers that are not finite become None. Rows end before the step that the
        run stops at; the result is the same in every process.

        Args:
          rows: of the steps since the last call, as `Meter.take` gives them.

        Raises:
          UserError: the examples could not be written.
        """
        good: list[dict[str, float | None]] = []
        error = None
        for row in rows:
            bad = [k for k, v in row.items() if not math.isfinite(v)]
            self._in_a_row = self._in_a_row + 1 if bad else 0
            if bad:
                self._write(row)
            if bad and not self._skips:
                error = _not_finite(row, bad)
                break
            good.append({k: None if k in bad else v for k, v in row.items()})
            if self._in_a_row == self._limit and self._skips:
                error = self._too_many(row, bad)
                break
        self._examples.clear()
        return good, error

    def _write(self, row: Row) -> None:
        step, process = int(row["step"]), jax.process_index()
        content = {
            "step": step,
            "values": {k: v if math.isfinite(v) else str(v) for k, v in row.items() if k != "step"},
            "examples": {k: _own_rows(v) for k, v in self._examples.get(step, {}).items()},
        }
        path = self._folder / (f"{step}-{process}.json" if process else f"{step}.json")
        with writing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(content, indent=1) + "\n")

    def _too_many(self, row: Row, bad: list[str]) -> UserError:
        return UserError(
            f"step {row['step']}: {_what(bad)} not finite, like {self._limit} steps in a row "
            f"(config.non_finite_limit={self._limit}); their examples are in {self._folder}"
        )


def _not_finite(row: Row, bad: list[str]) -> UserError:
    return UserError(
        f"step {row['step']}: {_what(bad)} not finite ({row[bad[0]]}); a lower learning rate or "
        f"config.optimizer.clip may help, config.non_finite='skip' leaves such steps out"
    )


def _what(bad: list[str]) -> str:
    names = [k.removesuffix("/loss") for k in bad if k.endswith("/loss")]
    if names:
        return f"the loss of objective {', '.join(names)} is"
    return f"{' and '.join(bad)} {'is' if len(bad) == 1 else 'are'}"


def _own_rows(values: jax.Array) -> list[int]:
    """The rows that this process holds, in the order of the batch."""
    pieces = {shard.index[0].start or 0: shard.data for shard in values.addressable_shards}
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)]).tolist()
