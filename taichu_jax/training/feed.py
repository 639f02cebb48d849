"""Batches on the device, one ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from taichu_jax.errors import UserError
from taichu_jax.training.sharding import batch_sharding, held_rows

_POLL = 0.002  # seconds between two looks at an empty queue


class Feed:
    """Takes batches from a loader and puts them on the mesh, in a thread of its own.

    Attributes:
      lost: seconds in which the device had nothing to do because a batch was not there.
    """

    def __init__(self, loader: Iterable[Any], mesh: Mesh):
        self.lost = 0.0
        self._loader = loader
        self._sharding = batch_sharding(mesh)
        parts = mesh.devices.size  # a batch size that every mesh axis divides
        self._parts, self._held = parts, len(held_rows(mesh, parts))
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def next(self, idle: Callable[[], bool]) -> Any:
        """The next batch, on the device.

        Args:
          idle: whether the device has finished all it was given.
        """
        since = None
        while True:
            if since is None and idle():
                since = time.monotonic()
            try:
                item = self._ready.get(timeout=_POLL)
                break
            except queue.Empty:
                continue
        if since is not None:
            self.lost += time.monotonic() - since
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            for batch in self._loader:
                if not self._put(jax.tree.map(self._place, batch)):
                    return
            self._put(UserError("the data loader ended before the run's last step"))
        except BaseException as error:
            self._put(error)

    def _place(self, rows: np.ndarray) -> jax.Array:
        """The global array of which this process holds `rows`, as `held_rows` says."""
        shape = (len(rows) * self._parts // self._held, *rows.shape[1:])
        return jax.make_array_from_process_local_data(self._sharding, rows, shape)

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
