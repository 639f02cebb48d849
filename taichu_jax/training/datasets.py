"""The prepared data that a run's streams read."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from taichu_jax.data.builder import STAMPS, prepare_stamps
from taichu_jax.data.records import index_path, read_status, status_path
from taichu_jax.data.streams import Stream
from taichu_jax.errors import UserError
from taichu_jax.training.processes import barrier


def prepare_data(streams: Mapping[str, Any], data: ConfigDict) -> None:
    """Fetches and prepares what is missing, and prints which data are used.

    Args:
      data: `config.data`.

    Raises:
      UserError: a data set that only its owner can prepare is not there.
    """
    names = sorted({s.dataset for s in streams.values() if isinstance(s, Stream)})
    if jax.process_index() == 0:
        for name in names:
            _prepare(name, data)
        if not names:
            print("data: made by the streams themselves", flush=True)
    barrier("prepared data")
    if jax.process_index() != 0:
        for name in names:  # on another host, unless they share data.dir
            if not status_path(data.dir, name).is_file():
                _prepare(name, data)
    _check_equal(names, data)


def _check_equal(names: list[str], data: ConfigDict) -> None:
    """Raises UserError where hosts have prepared different data: rows would repeat, or be left out."""
    if jax.process_count() == 1:
        return
    for name in names:
        own = np.uint32(zlib.crc32(index_path(data.dir, name).read_bytes()))
        first = multihost_utils.broadcast_one_to_all(own)
        if own != first:
            raise UserError(
                f"config.data.dir={data.dir}: data set {name!r} of process {jax.process_index()} is not "
                "that of process 0; prepare both from the same source"
            )


def _prepare(name: str, data: ConfigDict) -> None:
    status = read_status(data.dir, name)
    if name == STAMPS and (status is None or data.source or status["kind"] == "sample"):
        prepare_stamps(data.dir, data.source or None)  # prints which data these are
    elif status is not None:
        print(status["message"], flush=True)
    else:
        raise UserError(
            f"no prepared data set {name!r} in {data.dir}; make it with: python launch/prepare.py "
            f"--data_dir {data.dir} --name {name} --manifest FILE"
        )
