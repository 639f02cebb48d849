"""Reads the text of a compiled XLA program (`compiled.as_text()`): computations and instructions.

Only what the counts here need: names, shapes, operands, called computations and how often loops run. The
text is XLA's debugging format; it has no version, so the reader is tested on lines of both backends that
are used (CPU and TPU). The CPU compiler writes trip counts as `known_trip_count`; the TPU compiler
does not, so there they are read off the loop: counter < constant, counter + constant, first value.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BITS = {"pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "token": 0, "opaque": 0, "bf16": 16}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](?:\{([^{}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^{}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SPACE = re.compile(r"S\((\d+)\)")
_COMMENT = re.compile(r"/\*.*?\*/")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result.

    Attributes:
      space: memory space; 0 is main memory (HBM on a TPU), others are on the chip.
    """

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        """Bytes, without the padding of tiled layouts."""
        digits = re.search(r"\d+", self.dtype)
        bits = BITS.get(self.dtype, int(digits.group()) if digits else 0)
        if self.dtype.startswith("f8"):
            bits = 8
        return math.ceil(math.prod(self.shape) * bits / 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation; `attributes` is what follows the operands, as text."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    root: bool = False

    @property
    def called(self) -> dict[str, str]:
        """Attribute -> computation, for attributes that name one."""
        return dict(_CALLED.findall(self.attributes))

    @property
    def branches(self) -> tuple[str, ...]:
        """The computations of a conditional or a custom call."""
        found = _BRANCHES.search(self.attributes)
        names = found.group(1).split(",") if found else []
        return tuple(name.strip().lstrip("%") for name in names if name.strip())

    def attribute(self, pattern: str) -> str | None:
        """The first group of `pattern` (a regular expression) in the attributes."""
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """A list of instructions in the order of their execution."""

    name: str
    instructions: tuple[Instruction, ...]

    def __getitem__(self, name: str) -> Instruction:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @functools.cached_property
    def _by_name(self) -> dict[str, Instruction]:
        return {i.name: i for i in self.instructions}

    @property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next((i for i in self.instructions if i.root), self.instructions[-1])

    @property
    def parameters(self) -> dict[int, Instruction]:
        """Number -> parameter."""
        return {int(i.operands[0]): i for i in self.instructions if i.opcode == "parameter"}

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions that `instruction` reads."""
        return [self[name] for name in instruction.operands if name in self]

    def users(self, name: str) -> list[Instruction]:
        """The instructions that read `name`."""
        return [i for i in self.instructions if name in i.operands]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, Computation]
    entry: Computation
    head: str = ""

    @property
    def aliased(self) -> dict[int, int]:
        """Output -> argument whose buffer it takes over (donation)."""
        pairs = re.findall(r"\{(\d+)\}: \((\d+), \{\}", self.head.partition("entry_computation")[0])
        return {int(out): int(argument) for out, argument in pairs}


@dataclasses.dataclass(frozen=True)
class Run:
    """An instruction, how often one step runs it, and where it stands.

    Attributes:
      times: product of the trip counts of the loops around it; a loop whose count is not known
        counts once, and `unknown` is true.
      fused: inside a fusion, so that its operands and result need not be in memory.
    """

    instruction: Instruction
    computation: Computation
    times: int = 1
    fused: bool = False
    unknown: bool = False


def parse(text: str) -> Module:
    """The program that `text` describes."""
    computations: dict[str, Computation] = {}
    lines: list[Instruction] = []
    head, entry, name = text.partition("\n")[0], None, ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and not line.startswith(" "):
            name, lines = header.group(2), []
            entry = name if header.group(1) else entry
        elif line == "}" and name:
            computations[name] = Computation(name, tuple(lines))
            name = ""
        elif name:
            instruction = parse_line(line)
            if instruction is not None:
                lines.append(instruction)
    if entry is None:
        raise ValueError("the text has no ENTRY computation: not a compiled XLA program")
    return Module(computations, computations[entry], head)


def parse_line(line: str) -> Instruction | None:
    """One instruction, or None for a line that is something else."""
    line = _COMMENT.sub("", line)
    start = _NAME.match(line)
    if start is None:
        return None
    rest = line[start.end() :]
    shape_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    opcode = _OPCODE.match(rest, shape_end)
    if opcode is None:
        return None
    end = _closing(rest, opcode.end() - 1)
    inside = rest[opcode.end() : end]
    operands = re.findall(r"%([\w.\-]+)", inside)
    if not operands:  # parameter numbers, and names printed without the sign
        operands = [part.split()[-1] for part in inside.split(",") if part.strip()]
    return Instruction(
        name=start.group(2),
        opcode=opcode.group(1),
        arrays=tuple(_array(found) for found in _ARRAY.finditer(rest[:shape_end])),
        operands=tuple(operands),
        attributes=rest[end + 1 :],
        root=bool(start.group(1)),
    )


def trips(module: Module, inside: Computation, loop: Instruction) -> int | None:
    """How often a `while` of the computation `inside` runs its body; None if that cannot be told."""
    told = _TRIPS.search(loop.attributes)
    if told:
        return int(told.group(1))
    condition = module.computations[loop.called["condition"]]
    body = module.computations[loop.called["body"]]
    compared = _comparison(module, condition)
    if compared is None:
        return None
    index, limit = compared
    first = _constant(inside, _element(inside, loop.operands[0], index))
    step = _increment(body, index)
    if first is None or not step:
        return None
    return max(0, -((first - limit) // step))


def _comparison(module: Module, condition: Computation) -> tuple[int, int] | None:
    """(number of the counter, limit) of a condition `counter < limit`."""
    root = condition.root
    names = list(root.operands)
    if root.opcode == "fusion":
        fused = module.computations[root.called["calls"]]
        places = {p.name: names[number] for number, p in fused.parameters.items()}
        names = [places.get(name, name) for name in fused.root.operands]
        root = fused.root
    if root.opcode != "compare" or "direction=LT" not in root.attributes or len(names) != 2:
        return None
    index, limit = _counter(condition, names[0]), _constant(condition, names[1])
    return None if index is None or limit is None else (index, limit)


def _counter(inside: Computation, name: str) -> int | None:
    """The element of the loop's state that `name` is."""
    name = _original(inside, name)
    if name not in inside or inside[name].opcode != "get-tuple-element":
        return None
    return int(inside[name].attribute(r"index=(\d+)") or 0)


def _element(inside: Computation, name: str, index: int) -> str:
    """The name of an element of a tuple."""
    if name not in inside or inside[name].opcode != "tuple":
        return ""
    return inside[name].operands[index]


def _increment(body: Computation, index: int) -> int | None:
    """By how much one run of the body moves the counter."""
    name = _original(body, _element(body, body.root.name, index))
    if name not in body or body[name].opcode != "add":
        return None
    left, right = body[name].operands
    if _counter(body, left) == index:
        return _constant(body, right)
    return _constant(body, left) if _counter(body, right) == index else None


def _original(inside: Computation, name: str) -> str:
    """What `name` is a copy of."""
    while name in inside and inside[name].opcode in ("copy", "bitcast", "convert"):
        name = inside[name].operands[0]
    return name


def _constant(inside: Computation, name: str) -> int | None:
    """The value of a scalar integer constant."""
    name = _original(inside, name)
    if name not in inside or inside[name].opcode != "constant":
        return None
    value = inside[name].operands[0] if inside[name].operands else ""
    return int(value) if re.fullmatch(r"-?\d+", value) else None


def runs(module: Module) -> Iterator[Run]:
    """Every instruction that a step executes, with how often; scalar functions are not entered.

    All branches of a conditional count as executed.
    """
    yield from _runs(module, module.entry, 1, False, False)


def _runs(module, computation, times, fused, unknown) -> Iterator[Run]:
    for instruction in computation.instructions:
        yield Run(instruction, computation, times, fused, unknown)
        called, opcode = instruction.called, instruction.opcode
        if opcode == "while":
            count = trips(module, computation, instruction)
            inner, lost = times * (1 if count is None else count), unknown or count is None
            for key in ("condition", "body"):
                yield from _runs(module, module.computations[called[key]], inner, fused, lost)
        elif opcode == "fusion":
            yield from _runs(module, module.computations[called["calls"]], times, True, unknown)
        elif opcode in ("call", "async-start"):
            target = called.get("to_apply") or called["calls"]
            yield from _runs(module, module.computations[target], times, fused, unknown)
        elif opcode in ("conditional", "custom-call"):
            pair = [called[k] for k in ("true_computation", "false_computation") if k in called]
            for name in (*pair, *instruction.branches):
                yield from _runs(module, module.computations[name], times, fused, unknown)


def _array(found: re.Match) -> Array:
    dims = tuple(int(n.lstrip("<=")) for n in found.group(2).split(",") if n)
    space = _SPACE.search(found.group(3) or "")
    return Array(found.group(1), dims, int(space.group(1)) if space else 0)


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text) - 1
