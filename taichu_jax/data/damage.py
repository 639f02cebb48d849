"""Damaged examples, on their way from who decodes to who decides whether the run may go on.

Batches are made by threads or by processes of their own, so a count that one of them keeps reaches
nobody. What was left out of a batch travels with it instead, and is counted where batches arrive.
"""

import collections
import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any, Protocol

from taichu_jax.data.items import Damaged
from taichu_jax.data.parts import Batch
from taichu_jax.errors import UserError

WINDOW = 2000  # examples drawn, over which the share is taken
FEWEST = 5  # different examples; fewer never end a run, so that a tiny data set may have a bad file
_SURE = 3.0  # standard deviations above the share that is allowed
_SHOWN = 3

Report = Callable[[int, Damaged], None]  # of a record's row


@dataclasses.dataclass(frozen=True)
class Harm:
    """An example that could not be used."""

    example: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Harms:
    """Those that were drawn for one batch, in the order of drawing."""

    found: tuple[Harm, ...]


class Makes(Protocol):
    """Random access to batches that says what it left out."""

    @property
    def filler(self) -> Any:
        """What fills its rows; batches.Filler."""

    def __len__(self) -> int: ...

    def make(self, step: int, report: Report) -> Batch:
        """The batch of a step; each damaged example that was drawn for it is reported."""


@dataclasses.dataclass(frozen=True)
class WithHarms:
    """Element `step` is {"batch": the batch, "harms": Harms}."""

    training: Makes

    def __len__(self) -> int:
        return len(self.training)

    def __getitem__(self, step: int) -> dict[str, Any]:
        found: list[Harm] = []
        entries = self.training.filler.source.entries

        def report(row: int, damage: Damaged) -> None:
            found.append(Harm(entries[row].id, str(damage)))

        return {"batch": self.training.make(step, report), "harms": Harms(tuple(found))}


class Watch:
    """Names every damaged example of a stream once, and ends the run when there are too many.

    The share is taken over the last WINDOW examples drawn, not over all so far: so a disk that fails in
    the third week is noticed within minutes, and memory stays bounded. It counts as too high when it is
    above the limit by three standard deviations of a count of so many draws, so that a data set
    somewhat better than the limit is never ended by chance.

    Args:
      stream: its name.
      limit: the share that is allowed; 0: not one, 1: any.
    """

    def __init__(self, stream: str, limit: float):
        self._stream, self._limit = stream, limit
        self._window: collections.deque[tuple[int, Harms]] = collections.deque()
        self._drawn = self._bad = 0
        self._named: set[str] = set()

    def add(self, rows: int, harms: Harms) -> None:
        """Takes note of a batch.

        Raises:
          UserError: too many examples are damaged.
        """
        for harm in harms.found:
            if harm.example not in self._named:
                self._named.add(harm.example)
                logging.getLogger(__name__).warning("left out %s: %s", harm.example, harm.reason)
        self._count(rows, harms, 1)
        self._window.append((rows, harms))
        while self._drawn - self._draws(*self._window[0]) >= WINDOW:
            self._count(*self._window.popleft(), -1)
        allowed = self._limit * self._drawn
        allowed += _SURE * math.sqrt(allowed * (1 - self._limit))
        if self._bad > allowed:
            self._judge()

    def _judge(self) -> None:
        """Raises UserError, unless it is but a few examples, drawn again and again."""
        reasons = {harm.example: harm.reason for _, harms in self._window for harm in harms.found}
        if self._limit and len(reasons) < FEWEST:
            return
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:_SHOWN])
        raise UserError(
            f"config.data.damaged_share={self._limit}: of the last {self._drawn:,} examples drawn for "
            f"stream {self._stream!r} {self._bad:,} are damaged, {len(reasons):,} different ones: "
            f"{shown}{'; ...' if len(reasons) > _SHOWN else ''}; look at them, or prepare the data again"
        )

    def _count(self, rows: int, harms: Harms, sign: int) -> None:
        self._drawn += sign * self._draws(rows, harms)
        self._bad += sign * len(harms.found)

    @staticmethod
    def _draws(rows: int, harms: Harms) -> int:
        return rows + len(harms.found)
