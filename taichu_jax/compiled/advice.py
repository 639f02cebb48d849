"""What to change in a config that does not fit into a chip's memory, with numbers."""

from __future__ import annotations

import dataclasses

import jax
from ml_collections import ConfigDict

from taichu_jax.compiled.chips import GIB
from taichu_jax.compiled.memory import Memory, device_bytes
from taichu_jax.errors import UserError
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.sharding import MeshShape, state_sharding

WORTH_SPLITTING = 0.05  # the state's share of what is needed


def advice(experiment: Experiment, devices: list, memory: Memory) -> list[str]:
    """Changes that help, those that change no result first; empty where the program fits."""
    if memory.fits:
        return []
    state = sum(size for name, size in memory.parts.items() if name != "batch")
    batch = memory.parts.get("batch", 0)
    rest = max(0, memory.needed - state - batch)
    found = _more_fsdp(experiment, devices, state, memory.capacity)
    if state < WORTH_SPLITTING * memory.needed:
        found = []
    kept = sorted({path for path in _stacks(experiment.config) if path[1] != "full"})
    for path, policy in kept:
        found.append(f"config.{path}.remat=full (now {policy})")
    parts = experiment.config.accumulate
    room = memory.capacity - state - batch
    if batch > memory.capacity / 2:
        found.append(
            f"smaller batches, or more devices: {batch / GIB:.1f} GiB are the batch itself"
        )
    elif room > 0 and rest > room:
        wanted = parts * 2 ** int(rest / room).bit_length()
        found.append(
            f"config.accumulate={wanted} (now {parts}): {rest / GIB:.1f} GiB are temporaries, for which "
            f"{room / GIB:.1f} GiB are free; losses that compare examples see one micro-batch at a time"
        )
    return found or [f"more devices: {state / GIB:.1f} GiB a device are state alone"]


def _more_fsdp(experiment: Experiment, devices: list, state: int, capacity: int) -> list[str]:
    """The smallest larger `fsdp` whose state leaves half of the memory free, or the largest."""
    sizes = dict(experiment.mesh.shape)
    best = None
    fsdp = 2 * sizes["fsdp"]
    while sizes["data"] * sizes["fsdp"] % fsdp == 0:
        shape = {**sizes, "data": sizes["data"] * sizes["fsdp"] // fsdp, "fsdp": fsdp}
        known = {field.name for field in dataclasses.fields(MeshShape)}
        try:
            mesh = MeshShape(**{k: v for k, v in shape.items() if k in known}).make(devices)
        except UserError:
            break
        shapes = experiment.abstract_state()
        split = jax.tree.map(
            lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
            shapes,
            state_sharding(shapes, mesh),
        )
        best = (shape["data"], fsdp, device_bytes(split))
        if best[2] < capacity / 2:
            break
        fsdp *= 2
    if best is None or best[2] >= state:
        return []
    return [
        f"config.mesh.data={best[0]} config.mesh.fsdp={best[1]}: {best[2] / GIB:.1f} GiB of state a "
        f"device, now {state / GIB:.1f}"
    ]


def _stacks(config: ConfigDict, prefix: str = "") -> list[tuple[str, str]]:
    """(path, remat) of every stack of blocks in a config."""
    found = []
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            path = f"{prefix}.{key}" if prefix else key
            if "remat" in value:
                found.append((path, value.remat))
            found += _stacks(value, path)
    return found


def without_remat(config: ConfigDict) -> ConfigDict:
    """A copy of the config in which nothing is computed twice."""
    plain = config.copy_and_resolve_references()
    for path, _ in _stacks(plain):
        node = plain
        for part in path.split("."):
            node = node[part]
        node.remat = "none"
    return plain
