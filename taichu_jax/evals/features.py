"""Runs a trained run's networks over all examples of a stream.

A stream's `epoch(data_dir, tokenizer)` gives every example once, in batches of one shape; rows that
only fill up the last batch have `valid` false and are dropped here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from taichu_jax.training.nets import BoundNets

Batch = Mapping[str, np.ndarray]
PyTree = Any


def epoch(run, stream):
    """Batches of one pass over the stream, without augmentation."""
    return stream.epoch(run.config.data.dir, run.tokenizer)


def collect(
    run,
    stream,
    function: Callable[[Any, Batch], PyTree] | None = None,
    fields: tuple[str, ...] = (),
    where: Callable[[Batch], np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], PyTree]:
    """(fields, outputs) of all examples, each array [N, ...] on the host.

    Args:
      function: from (nets, batch) to a tree of arrays [B, ...]; jitted once.
      fields: fields of the stream to keep, besides the outputs.
      where: from a batch to bool [B], the examples that are wanted; all by default. Batches without
        any are not computed.
    """
    compute = jitted(run, function) if function else lambda batch: {}
    kept: list[tuple[dict, PyTree]] = []
    for batch in epoch(run, stream):
        rows = np.asarray(batch["valid"], bool)
        if where is not None:
            rows = rows & where(batch)
        if not rows.any():
            continue
        outputs = jax.device_get(compute(_arrays(batch)))
        chosen = jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], outputs)
        kept.append(({name: np.asarray(batch[name])[rows] for name in fields}, chosen))
    if not kept:
        return {}, {}
    return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)


def thinned(stream, limit: int):
    """The stream with at most `limit` of its examples, at even distances in its own order.

    Streams are sorted by language and record, so every language and category stays in proportion.
    """
    values = {f.name: getattr(stream, f.name) for f in dataclasses.fields(stream)}
    cls: Any = type(stream)
    return _thin_class(cls)(**values, limit=limit)


@functools.cache
def _thin_class(cls: Any) -> Any:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Thinned(cls):
        limit: int

        def select(self, source):
            everything = super().select(source)
            size = min(self.limit, len(everything))
            return [everything[i] for i in np.linspace(0, len(everything) - 1, size).astype(int)]

    return Thinned


def jitted(run, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function(nets, *args)` as a compiled function of its other arguments.

    The weights are an argument of the program and not constants in it.
    """

    @jax.jit
    def compiled(params, *args):
        nets = BoundNets(
            run.experiment.networks,
            params,
            compute_dtype=run.experiment.compute_dtype,
            owner="evaluation",
        )
        return function(nets, *args)

    return lambda *args: compiled(run.params, *args)


def has_networks(run, *names: str) -> bool:
    """Whether the run trains all of these networks."""
    return all(name in run.experiment.networks for name in names)


def _arrays(batch: Batch) -> dict[str, np.ndarray]:
    return {name: value for name, value in batch.items() if name != "valid"}
