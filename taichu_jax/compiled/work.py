"""What one device does in one step, counted in the compiled program, loops by their trip counts.

XLA's own `cost_analysis` counts a loop's body once, whatever its trip count, so a scanned stack of 24
layers counts as one. The rules here are the same except for that: floating-point operations are those
of matrix products and convolutions (2 per multiplication and addition), bytes are those of every
operand and result in main memory, a fusion being one operation. A fusion that slices an operand reads the
slice; one that updates a slice writes the slice.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np

from taichu_jax.compiled.hlo import Computation, Instruction, Module, Run, runs, trips

# Names for other values, or work that is counted where it stands.
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "opt-barrier",
    "optimization-barrier",
    "partition-id",
    "replica-id",
    "async-start",
    "async-update",
    "async-done",
}


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one device and one step.

    Attributes:
      flops: of matrix products and convolutions.
      bytes: moved to and from main memory.
      flops_once: flops with every loop counted once, as XLA does it.
      unknown_loops: loops whose trip count XLA does not know; their bodies count once.
    """

    flops: float
    bytes: float
    flops_once: float
    unknown_loops: int


def work(module: Module) -> Work:
    """Counts a whole program."""
    flops = moved = once = 0.0
    unknown = 0
    for run in runs(module):
        opcode = run.instruction.opcode
        if opcode in ("dot", "convolution"):
            one = instruction_flops(run.computation, run.instruction)
            flops += run.times * one
            once += one
        if opcode == "while" and trips(module, run.computation, run.instruction) is None:
            unknown += 1
        if not run.fused:
            moved += run.times * _moved(module, run)
    return Work(flops, moved, once, unknown)


def instruction_flops(inside: Computation, instruction: Instruction) -> float:
    """Of one `dot` or `convolution`."""
    left, right = (operand.arrays[0].shape for operand in inside.operands(instruction)[:2])
    out = instruction.arrays[0].shape
    if instruction.opcode == "dot":
        contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
        return 2.0 * math.prod(out) * math.prod(left[int(i)] for i in contracted.split(",") if i)
    labels = instruction.attribute(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    if labels is None:
        raise ValueError(f"convolution {instruction.name} without dim_labels")
    lhs, kernel, result = re.split(r"_|->", labels)
    groups = int(instruction.attribute(r"feature_group_count=(\d+)") or 1)
    batch_groups = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    count = left[lhs.index("f")] / groups * right[kernel.index("o")]
    count *= left[lhs.index("b")] / batch_groups
    for label in (c for c in lhs if c.isdigit()):
        i = int(label)
        count *= positions(
            left[lhs.index(label)],
            out[result.index(label)],
            _window(instruction, "size", i, right[kernel.index(label)]),
            _window(instruction, "stride", i, 1),
            _window(instruction, "pad", i, 0),
            _window(instruction, "lhs_dilate", i, 1),
            _window(instruction, "rhs_dilate", i, 1),
        )
    return 2.0 * count


@functools.lru_cache(maxsize=4096)
def positions(
    size: int,
    out: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    lhs_dilation: int = 1,
    rhs_dilation: int = 1,
) -> int:
    """Pairs of output and kernel positions along one dimension that meet a value of the input.

    Neither padding nor the holes of a dilated input count. The TPU compiler writes batch dimensions of
    a product as spatial ones with such holes.
    """
    where = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * rhs_dilation - padding
    real = (where >= 0) & (where <= (size - 1) * lhs_dilation) & (where % lhs_dilation == 0)
    return int(real.sum())


def _window(instruction: Instruction, key: str, i: int, default: int) -> int:
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    found = re.search(rf"(?:^| ){key}=(\S+)", window)
    if not found:
        return default
    return int(found.group(1).split("x")[i].split("_")[0])  # of a padding low_high: low


def _moved(module: Module, run: Run) -> float:
    instruction, inside = run.instruction, run.computation
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0.0
    operands = inside.operands(instruction)
    if opcode in ("dynamic-slice", "slice", "gather"):
        return 2.0 * _main(instruction)
    if opcode in ("dynamic-update-slice", "scatter"):
        return 2.0 * _main(operands[1 if opcode.startswith("dynamic") else -1])
    if opcode.endswith("-start"):  # its result repeats its operands
        return 2.0 * _main(operands[0]) if operands else 0.0
    if opcode == "fusion":
        return _fusion(module.computations[instruction.called["calls"]], instruction, operands)
    return _main(instruction) + sum(map(_main, operands))


def _fusion(body: Computation, instruction: Instruction, operands: list[Instruction]) -> float:
    moved = 0.0
    parameters = body.parameters
    for number, operand in enumerate(operands):
        if number not in parameters or not _main(operand):
            continue
        name = parameters[number].name
        users = body.users(name)
        if users and all(
            u.opcode in ("dynamic-slice", "slice", "gather") and u.operands[0] == name
            for u in users
        ):
            moved += sum(a.size for u in users for a in u.arrays)
        elif users and all(
            u.opcode == "dynamic-update-slice" and u.operands[0] == name for u in users
        ):
            continue  # updated in place
        else:
            moved += _main(operand)
    root = body.root
    parts = body.operands(root) if root.opcode == "tuple" else [root]
    for array, part in zip(instruction.arrays, parts, strict=False):
        if array.space or part.opcode == "parameter":
            continue
        while part.opcode in ("bitcast", "copy", "convert") and part.operands[0] in body:
            part = body[part.operands[0]]
        if part.opcode == "dynamic-update-slice":
            moved += sum(a.size for a in body[part.operands[1]].arrays)
        else:
            moved += array.size
    return moved


def _main(instruction: Instruction) -> int:
    """Bytes of the result that lie in main memory."""
    return sum(a.size for a in instruction.arrays if a.space == 0)
