"""Which tensor of another library is which of our parameters, in both directions, exactly.

A rule takes one tensor of theirs to one or more parameters of ours and gives it back: transposed,
reshaped, cut; or to one entry of a parameter that stacks several of theirs. Nothing is added or
multiplied, so both directions are exact, and what is right for weights is right for gradients.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from taichu_jax.errors import UserError

PyTree = Any
_MOST_SHOWN = 5


class Rule(NamedTuple):
    """One tensor.

    Attributes:
      theirs: its name.
      ours: the paths 'network/module/name' of the parameters that it is made of.
      take: these parameters from the tensor.
      give: the tensor from these parameters.
      entry: which entry along the parameters' first axis it is, of those that other rules have the
        other entries of; None for the whole of them.
    """

    theirs: str
    ours: tuple[str, ...]
    take: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    give: Callable[..., np.ndarray]
    entry: int | None = None

    def of(self, whole: np.ndarray) -> np.ndarray:
        """The rule's part of a parameter."""
        return whole if self.entry is None else whole[self.entry]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """All tensors of an architecture.

    Attributes:
      rules: of tensors that are always there.
      parts: rules of tensors that are there together or not at all (heads), by the part's name.
      prefix: what the names of the encoder begin with; files of the encoder alone lack it.
      renames: (pattern, replacement) of names in older files.
      tied: name -> the name of the tensor that it repeats; files have either or both.
      ignored: patterns of tensors that are no weights.
      left_out: patterns of weights for which there is no network here.
    """

    rules: list[Rule]
    parts: Mapping[str, list[Rule]] = dataclasses.field(default_factory=dict)
    prefix: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def canonical(self, names: Iterable[str]) -> dict[str, str]:
        """name in a file -> name in the rules."""
        result = {}
        for name in names:
            result[name] = name
            for pattern, replacement in self.renames:
                result[name] = re.sub(pattern, replacement, result[name])
        if any(name.startswith(self.prefix) for name in result.values()):
            return result
        heads = {r.theirs for rules in self.parts.values() for r in rules} | set(self.tied)
        return {k: v if v in heads else self.prefix + v for k, v in result.items()}

    def present(self, names: Iterable[str]) -> frozenset[str]:
        """The parts of which a tensor is among the canonical `names`."""
        names = set(names)
        return frozenset(
            part for part, rules in self.parts.items() if any(r.theirs in names for r in rules)
        )

    def held(self, paths: Iterable[str]) -> frozenset[str]:
        """The parts of which a parameter is among `paths`."""
        paths = set(paths)
        return frozenset(
            part for part, rules in self.parts.items() if any(paths & set(r.ours) for r in rules)
        )

    def chosen(self, parts: Iterable[str]) -> list[Rule]:
        """The rules of these parts and of what is always there."""
        return [*self.rules, *(rule for part in sorted(parts) for rule in self.parts[part])]


def to_ours(
    table: Table,
    tensors: Mapping[str, np.ndarray],
    shapes: PyTree,
    *,
    where: str,
    skip: str = "",
) -> PyTree:
    """Our nested parameters, float32, from their tensors.

    Args:
      shapes: our nested parameters, of which only the shapes are read; may have more.
      where: what errors begin with.
      skip: a pattern of tensors that are left out though no rule knows them.

    Raises:
      UserError: names every tensor that is missing, unexpected or of another shape or type.
    """
    names = table.canonical(tensors)
    found = {canonical: tensors[name] for name, canonical in names.items()}
    for name, original in table.tied.items():
        if name in found:
            found.setdefault(original, found[name])
    rules = table.chosen(table.present(found))
    wanted = traverse_util.flatten_dict(dict(shapes), sep="/")
    known = {rule.theirs for rule in rules} | set(table.tied)
    missing = sorted(rule.theirs for rule in rules if rule.theirs not in found)
    ignored = [*table.ignored, *table.left_out, *([skip] if skip else [])]
    unexpected = sorted(
        name
        for name, canonical in names.items()
        if canonical not in known and not any(re.search(p, name) for p in ignored)
    )
    result: dict[str, np.ndarray] = {}
    entries: dict[str, dict[int, np.ndarray]] = {}
    wrong = []
    for rule in rules:
        if rule.theirs not in found:
            continue
        tensor = found[rule.theirs]
        if tensor.dtype.name not in ("float32", "float16", "bfloat16"):
            wrong.append(f"{rule.theirs} is {tensor.dtype.name}, not a float of 32 or 16 bits")
            continue
        try:
            parts = rule.take(tensor.astype(np.float32))
        except ValueError:
            parts = ()  # of too few axes, or of a length that does not divide
        expected = [
            tuple(wanted[path].shape)[0 if rule.entry is None else 1 :] for path in rule.ours
        ]
        if [part.shape for part in parts] != expected:
            right = rule.give(*(np.zeros(shape, np.float32) for shape in expected)).shape
            wrong.append(f"{rule.theirs} is {list(tensor.shape)}, not {list(right)}")
            continue
        for path, part in zip(rule.ours, parts, strict=True):
            if rule.entry is None:
                result[path] = part
            else:
                entries.setdefault(path, {})[rule.entry] = part
    for name, original in table.tied.items():
        if name in found and original in found:
            same = found[name].shape == found[original].shape
            if not same or not np.array_equal(found[name], found[original]):
                wrong.append(f"{name} is not the same as {original}, to which it is tied")
    problems = [
        _listed(kind, lines)
        for kind, lines in (("missing", missing), ("unexpected", unexpected), ("wrong", wrong))
        if lines
    ]
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")
    result |= {path: np.stack([found[i] for i in sorted(found)]) for path, found in entries.items()}
    return traverse_util.unflatten_dict(result, sep="/")


def to_theirs(table: Table, params: PyTree, *, where: str) -> tuple[dict[str, np.ndarray], list]:
    """(their tensors, float32; paths of ours that have no place there).

    Raises:
      UserError: a parameter is missing.
    """
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    rules = table.chosen(table.held(flat))
    missing = sorted(path for rule in rules for path in rule.ours if path not in flat)
    if missing:
        raise UserError(f"{where}: {_listed('missing', missing)}")
    tensors = {
        rule.theirs: rule.give(*(rule.of(np.asarray(flat[path], np.float32)) for path in rule.ours))
        for rule in rules
    }
    used = {path for rule in rules for path in rule.ours}
    return tensors, sorted(set(flat) - used)


def unscanned(params: PyTree) -> PyTree:
    """The parameters of scanned stacks, `blocks` [depth, ...], as `block_0`, `block_1`, ...

    Raises:
      UserError: blocks of two kinds take turns (experts).
    """
    result = {}
    for path, value in traverse_util.flatten_dict(dict(params), sep="/").items():
        before, scanned, after = path.partition("/blocks/")
        if not scanned:
            result[path] = value
        elif re.match(r"block_\d+/", after):
            raise UserError(f"{before}/blocks: mixtures of experts have no place there")
        else:
            for i, part in enumerate(np.asarray(value)):
                result[f"{before}/block_{i}/{after}"] = part
    return traverse_util.unflatten_dict(result, sep="/")


def _listed(kind: str, lines: list[str]) -> str:
    more = f" and {len(lines) - _MOST_SHOWN} more" if len(lines) > _MOST_SHOWN else ""
    return f"{kind}: {', '.join(lines[:_MOST_SHOWN])}{more}"


# Kinds of tensors


def same(theirs: str, ours: str) -> Rule:
    """Equal shapes."""
    return Rule(theirs, (ours,), lambda x: (x,), lambda x: x)


def transposed(theirs: str, ours: str) -> Rule:
    """All axes in the reverse order: torch's [out, in] and [out, in / groups, size]."""
    return Rule(theirs, (ours,), lambda x: (x.T,), lambda x: x.T)


def leading(theirs: str, ours: str, ones: int) -> Rule:
    """Theirs has `ones` axes of length 1 before ours."""

    def take(x):
        if x.shape[:ones] != (1,) * ones:
            raise ValueError("an axis that is not 1")
        return (x.reshape(x.shape[ones:]),)

    return Rule(theirs, (ours,), take, lambda x: x.reshape((1,) * ones + x.shape))


def cut(theirs: str, ours: tuple[str, ...], axis: int) -> Rule:
    """Equal parts along an axis: a product that gives queries, keys and values at once."""
    return Rule(
        theirs,
        ours,
        lambda x: tuple(np.split(x, len(ours), axis)),
        lambda *parts: np.concatenate(parts, axis),
    )


def patches(theirs: str, ours: str, size: int) -> Rule:
    """torch.nn.Conv2d over squares that do not overlap, [out, 3, size, size], as a product [in, out]."""

    def take(x):
        if x.shape[1:] != (3, size, size):
            raise ValueError("another patch")
        return (x.transpose(2, 3, 1, 0).reshape(-1, len(x)),)

    def give(x):
        return x.reshape(size, size, 3, -1).transpose(3, 2, 0, 1)

    return Rule(theirs, (ours,), take, give)


def cut_transposed(theirs: str, ours: tuple[str, ...]) -> Rule:
    """torch.nn.Linear's weight [out, in] that is several products at once, one after the other."""
    return Rule(
        theirs,
        ours,
        lambda x: tuple(part.T for part in np.split(x, len(ours))),
        lambda *parts: np.concatenate([part.T for part in parts]),
    )


def positions(theirs: str, cls: str, grid: str, ones: int = 1) -> Rule:
    """Positions of the class token and of the patches in one array [1, 1 + N, D] (or without the 1)."""

    def take(x):
        if x.ndim != ones + 2:
            raise ValueError("another rank")
        x = x.reshape(x.shape[-2:])
        return x[0], x[1:]

    def give(first, rest):
        x = np.concatenate([first[None], rest])
        return x.reshape((1,) * ones + x.shape)

    return Rule(theirs, (cls, grid), take, give)


# Layers


def convolution_2d(theirs: str, ours: str) -> list[Rule]:
    """torch.nn.Conv2d [out, in, height, width]."""
    kernel = Rule(
        f"{theirs}.weight",
        (f"{ours}/kernel",),
        lambda x: (x.transpose(2, 3, 1, 0),),
        lambda x: x.transpose(3, 2, 0, 1),
    )
    return [kernel, same(f"{theirs}.bias", f"{ours}/bias")]


def dense(theirs: str, ours: str, bias: bool = True) -> list[Rule]:
    """torch.nn.Linear."""
    kernel = transposed(f"{theirs}.weight", f"{ours}/kernel")
    return [kernel, *([same(f"{theirs}.bias", f"{ours}/bias")] if bias else [])]


convolution = dense  # torch.nn.Conv1d: its three axes are reversed too


def norm(theirs: str, ours: str) -> list[Rule]:
    """torch.nn.LayerNorm or GroupNorm."""
    return [same(f"{theirs}.weight", f"{ours}/scale"), same(f"{theirs}.bias", f"{ours}/bias")]


def batch_norm(theirs: str, ours: str) -> list[Rule]:
    """torch.nn.BatchNorm1d, but for its count of batches."""
    mean, variance = f"{theirs}.running_mean", f"{theirs}.running_var"
    return [*norm(theirs, ours), same(mean, f"{ours}/mean"), same(variance, f"{ours}/variance")]
