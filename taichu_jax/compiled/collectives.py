"""The collectives of a compiled program: which, how often, how many bytes.

Payload is the whole array that a group of devices agrees on, per device and step: the operand of an
all-reduce, reduce-scatter, all-to-all or permute, the result of an all-gather. On the wire a ring (or a
torus of rings) of n devices makes every device send, of a payload of b bytes,

    all-reduce 2 (n - 1) / n b;  all-gather, reduce-scatter, all-to-all (n - 1) / n b;  permute b

On TPUs XLA splits a collective into parts and fuses them with what runs beside it; the parts have one
channel number and count once. An all-reduce inside a fusion of which only slices are used is a
reduce-scatter, which is how the TPU compiler writes one.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable

from taichu_jax.compiled.hlo import Instruction, Module, Run, runs

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_SLICES = ("dynamic-slice", "bitcast", "copy", "reshape")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective.

    Attributes:
      times: runs per step.
      payload: bytes of one run, see above.
      group: devices that take part together.
      dtypes: of the operands.
      source: the operation of the program that it comes from, as XLA tells it.
    """

    kind: str
    times: int
    payload: int
    group: int
    dtypes: tuple[str, ...]
    source: str = ""

    @property
    def wire(self) -> float:
        """Bytes that one device sends in one run."""
        n = self.group
        if self.kind in ("collective-permute", "collective-broadcast"):
            return float(self.payload)
        return (2 if self.kind == "all-reduce" else 1) * (n - 1) / n * self.payload


@dataclasses.dataclass(frozen=True)
class Total:
    """All collectives of one kind: runs, payload bytes and sent bytes per device and step."""

    count: int = 0
    payload: int = 0
    wire: float = 0.0


def collectives(module: Module, devices: int) -> list[Collective]:
    """Every collective among more than one device, in the order of the text.

    Args:
      devices: of the program, for groups that are not spelt out.
    """
    found: dict[tuple, Collective] = {}
    for i, run in enumerate(runs(module)):
        kind = run.instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        one = _read(run, kind, devices)
        if one.group == 1:
            continue
        channel = run.instruction.attribute(r"channel_id=(\d+)")
        key = (one.kind, channel if channel else f"line {i}")
        if key not in found or one.times > found[key].times:
            found[key] = one
    return list(found.values())


def totals(found: Iterable[Collective]) -> dict[str, Total]:
    """Sums by kind."""
    result: dict[str, Total] = {}
    for one in found:
        old = result.get(one.kind, Total())
        result[one.kind] = Total(
            old.count + one.times,
            old.payload + one.times * one.payload,
            old.wire + one.times * one.wire,
        )
    return result


def _read(run: Run, kind: str, devices: int) -> Collective:
    instruction, inside = run.instruction, run.computation
    operands = inside.operands(instruction)
    if kind in ("collective-permute", "collective-broadcast"):
        operands = operands[:1]  # others of an in-place permute are offsets
    arrays = [a for operand in operands for a in operand.arrays]
    group = _group(instruction, devices)
    size = sum(a.size for a in arrays)
    if kind == "all-gather":
        size *= group
    elif kind == "all-reduce" and run.fused and _only_sliced(run):
        kind = "reduce-scatter"
    return Collective(
        kind=kind,
        times=run.times,
        payload=size,
        group=group,
        dtypes=tuple(sorted({a.dtype for a in arrays})),
        source=instruction.attribute(r'op_name="([^"]*)"') or "",
    )


def _only_sliced(run: Run) -> bool:
    """Whether each device keeps only its slice of the result."""
    names, sliced = [run.instruction.name], False
    while names:
        for user in run.computation.users(names.pop()):
            if user.opcode not in _SLICES:
                return False
            if user.opcode == "dynamic-slice":
                sliced = True
            else:
                names.append(user.name)
    return sliced


def _group(instruction: Instruction, devices: int) -> int:
    """Devices per group; XLA has three ways to write them, and none for all of them together."""
    text = instruction.attributes
    if instruction.opcode.startswith("collective-permute"):
        pairs = re.findall(r"\{(\d+),(\d+)\}", text)
        return 1 if all(a == b for a, b in pairs) else 2
    if "replica_groups=" not in text or "replica_groups={}" in text:
        return devices
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(tiled.group(1))
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(listed.group(1).split(","))
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = {k: int(n) for k, n in re.findall(r"'([^']*)'=(\d+)", named.group(1))}
        parts = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", named.group(2))
        return math.prod(int(part) if part else sizes[axis] for axis, part in parts)
    raise ValueError(f"replica_groups in a form that is not known: {text[:200]}")
