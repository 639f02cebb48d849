"""TPU slices as lists of devices that are not there: what libtpu needs to compile for them."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies

from taichu_jax.compiled.chips import CHIPS, Chip
from taichu_jax.errors import UserError

EXAMPLES = "v5e:16x16, v5p:8x8x8, v4:4x4x4, v6e:16x16, v3:4x4, v2:2x2, tpu7x:2x2x1"
# libtpu looks for the machine that it runs on, over the network and then in these.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no TPU that two processes could fight over
}


def devices_of(name: str) -> list[jax.Device]:
    """The devices of a slice, for example `v5e:16x16`; they can be compiled for, nothing else.

    Raises:
      UserError: libtpu is not installed, or there is no such slice.
    """
    size = [int(n) for n in re.findall(r"\d+", name.partition(":")[2])]
    options: dict[str, Any] = {}
    if name.startswith("v4"):
        options["chip_config_name"] = "megacore"  # two cores are one device, as on Cloud TPUs
    if size and math.prod(size) == 1:  # libtpu's default is four chips to a host
        options["chips_per_host_bounds"] = (1,) * 3
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        with errors_kept():  # libtpu complains that this machine is no TPU
            topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except (RuntimeError, ValueError) as error:
        if "not installed" in str(error):
            raise UserError(
                "--topology: needs libtpu, which compiles for TPUs without one: pip install 'jax[tpu]'"
            ) from error
        line = str(error).strip().splitlines()[0]
        raise UserError(f"--topology {name}: {line}; valid are for example {EXAMPLES}") from error
    return list(topology.devices)


def chip_of(devices: list) -> Chip:
    """What is known of the chips of these devices."""
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise UserError(f"nothing is known of chips of the kind {kind!r}; {', '.join(CHIPS)}")
    return CHIPS[kind]


@contextlib.contextmanager
def errors_kept() -> Iterator[list[str]]:
    """What is written to stderr meanwhile, by C++ code too, goes into this list instead."""
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines.extend(file.read().decode("utf8", "replace").splitlines())
