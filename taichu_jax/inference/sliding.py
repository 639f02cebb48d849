"""The part of a stream that a network must see to go on, in an array of one shape.

A network whose output t depends on the steps t - before .. t + after and on nothing else gives in such a
window exactly what it gives on the whole stream: a window begins either where the stream does, or
`before` steps ahead of its first output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class View(NamedTuple):
    """What a network is shown.

    Attributes:
      steps: [size, ...], zeros behind what is known.
      known: how many steps are not filling; None while the stream goes on: nothing has ended.
      first: the place of the first new output.
      new: how many outputs are new.
    """

    steps: np.ndarray
    known: int | None
    first: int
    new: int


class SlidingWindow:
    """Steps in, views out, as soon as they can be had.

    Args:
      before, after: steps around its own that an output depends on.
      most: new outputs in a view.

    Attributes:
      size: steps in a view.
    """

    def __init__(self, before: int, after: int, most: int):
        self._before, self._after, self._most = before, after, most
        self.size = before + most + after
        self._kept: np.ndarray | None = None
        self._start, self._done = 0, 0  # the step that _kept begins with; outputs that were given

    def feed(self, steps: np.ndarray) -> Iterator[View]:
        """With [n, ...] more."""
        self._kept = steps if self._kept is None else np.concatenate([self._kept, steps])
        yield from self._views(self._start + len(self._kept) - self._after, ended=False)

    def finish(self) -> Iterator[View]:
        """Those at the end, behind which there is nothing."""
        if self._kept is not None:
            yield from self._views(self._start + len(self._kept), ended=True)

    def _views(self, end: int, *, ended: bool) -> Iterator[View]:
        while self._done < end:
            assert self._kept is not None
            start = max(0, self._done - self._before)
            self._kept, self._start = self._kept[start - self._start :], start
            known = min(len(self._kept), self.size)
            steps = np.zeros((self.size, *self._kept.shape[1:]), self._kept.dtype)
            steps[:known] = self._kept[:known]
            first, count = self._done - start, min(self._most, end - self._done)
            self._done += count
            yield View(steps, known if ended else None, first, count)
