"""Where arrays live: a mesh of devices and rules from parameter path to partition.

The program is written for the whole batch; the compiler splits it. One laptop is a mesh of ones.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from taichu_jax.errors import UserError
from taichu_jax.ops.constrain import BATCH as BATCH_AXES

PyTree = Any

# Matrices are split over `tensor` along the dimension that their product keeps apart (heads, hidden
# units, vocabulary) and over `fsdp` along the other; everything small is copied to every device.
PARAMETER_RULES = (
    (r"experts/up/kernel$", P("expert", "fsdp", "tensor")),
    (r"experts/down/kernel$", P("expert", "tensor", "fsdp")),
    (r"experts/(up|down)/bias$", P("expert", None)),
    (r"router/kernel$", P(None, None)),
    (r"(query|key|value|up|gate)/kernel$", P("fsdp", "tensor")),
    (r"(out|down)/kernel$", P("tensor", "fsdp")),
    (r"token_embedding$", P("tensor", "fsdp")),
    (r"kernel$", P("fsdp", None)),
    (r".*", P()),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Devices per axis; one axis may be -1, for all devices that are left.

    Neighbours in the last axis are neighbours in the machine. So the axes come in the order of how much
    they wait for one another: copies of the parameters meet once a step; parameters are gathered, and
    gradients scattered, while something else is computed; tokens travel to their experts and back once
    a mixture; keys and values are gathered in every block; halves of a product are added twice in
    every block.

    Attributes:
      data: copies of the parameters, each with its part of the batch.
      fsdp: parameters, optimiser state and batch are split.
      expert: experts are split, and the batch; everything else is copied as over `data`.
      sequence: the positions of an example are split.
      tensor: heads, hidden units and vocabulary are split.
    """

    data: int = -1
    fsdp: int = 1
    expert: int = 1
    sequence: int = 1
    tensor: int = 1

    def make(self, devices: list | None = None) -> Mesh:
        devices = jax.devices() if devices is None else devices
        sizes = dataclasses.asdict(self)
        known = int(np.prod([n for n in sizes.values() if n != -1]))
        free = [axis for axis, n in sizes.items() if n == -1]
        if (
            len(free) > 1
            or known < 1
            or len(devices) % known
            or (not free and known > len(devices))
        ):
            raise UserError(
                f"config.mesh: {sizes} does not divide the {len(devices)} devices of this machine"
            )
        for axis in free:
            sizes[axis] = len(devices) // known
        used = int(np.prod(list(sizes.values())))
        if used < len(devices) and jax.process_count() > 1:
            raise UserError(
                f"config.mesh: {sizes} uses {used} of {len(devices)} devices; with several processes all "
                "must be used (-1 takes what is left)"
            )
        grid = _arranged(devices[:used], tuple(sizes.values()), whole=used == len(devices))
        return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _arranged(devices: list, shape: tuple[int, ...], whole: bool) -> np.ndarray:
    """The devices as a grid; on a whole TPU slice neighbours in an axis are wired to each other."""
    if whole and devices[0].platform == "tpu":
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return np.asarray(devices).reshape(shape)


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
    """`function`, which sees the mesh while it is traced; for `jax.jit` and `jax.eval_shape`.

    The axes of `ops.constrain` mean something inside only. Unlike `jax.set_mesh` around the call, this
    also holds for `.lower()`, and for whoever else calls the function.
    """

    @functools.wraps(function)
    def traced(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are split over the data, fsdp and expert axes."""
    return NamedSharding(mesh, P(BATCH_AXES))


def held_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """The rows of a global batch that this process's devices hold, in ascending order.

    Not always a block of its own: where `tensor` or `sequence` reach over several processes, these hold
    the same rows.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = [index[0] for index in held if index]
    return sorted({row for piece in rows for row in range(*piece.indices(batch_size))})


def check_batch(mesh: Mesh, name: str, size: int, accumulate: int = 1) -> None:
    """Raises UserError when a batch cannot be divided among micro-batches and devices."""
    parts = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES])) * accumulate
    if size % parts:
        valid = [n for n in range(parts, size + 2 * parts, parts)][-3:]
        raise UserError(
            f"config.streams.{name}.batch_size={size}: not divisible by {parts} "
            f"(data x fsdp x expert devices x accumulate); valid: {', '.join(map(str, valid))}"
        )


def partition(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The partition of one parameter: the first rule that matches, without axes that do not divide.

    A rule describes the last dimensions; leading ones (stacked layers) stay whole.
    """
    rule = next(rule for pattern, rule in PARAMETER_RULES if re.search(pattern, path))
    axes = [None] * (len(shape) - len(rule)) + list(rule)[max(0, len(rule) - len(shape)) :]
    fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)]
    return P(*fits)


def state_sharding(state: PyTree, mesh: Mesh) -> PyTree:
    """A NamedSharding for every array of a train state.

    Optimiser moments and teachers are keyed by the same paths as the parameters that they follow, so
    the same rules split them the same way.
    """

    def shard(key_path, leaf):
        path = "/".join(_part(k) for k in key_path)
        return NamedSharding(mesh, partition(path, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(shard, state)


def _part(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def table(params: PyTree, mesh: Mesh) -> dict[str, P]:
    """Path -> partition of every parameter, for golden files and for people."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {path: partition(path, leaf.shape, mesh) for path, leaf in sorted(flat.items())}
