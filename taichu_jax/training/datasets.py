"""The prepared data that a run's streams read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from taichu_jax.data.builder import STAMPS, prepare_stamps
from taichu_jax.data.records import status_path
from taichu_jax.data.streams import Stream
from taichu_jax.errors import UserError


def prepare_data(streams: Mapping[str, Any], data: ConfigDict) -> None:
    """Fetches and prepares what is missing, and prints which data are used.

    Args:
      data: `config.data`.

    Raises:
      UserError: a data set that only its owner can prepare is not there.
    """
    if jax.process_index() == 0:
        names = sorted({s.dataset for s in streams.values() if isinstance(s, Stream)})
        for name in names:
            _prepare(name, data)
        if not names:
            print("data: made by the streams themselves", flush=True)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("prepared data")


def _prepare(name: str, data: ConfigDict) -> None:
    path = status_path(data.dir, name)
    status = json.loads(path.read_text("utf8")) if path.is_file() else None
    if name == STAMPS and (status is None or data.source or status["kind"] == "sample"):
        prepare_stamps(data.dir, data.source or None)  # prints which data these are
    elif status is not None:
        print(status["message"], flush=True)
    else:
        raise UserError(
            f"no prepared data set {name!r} in {data.dir}; make it with: python launch/prepare.py "
            f"--data_dir {data.dir} --name {name} --manifest FILE"
        )
