"""Runs an encoder over examples: means of every layer, or tokens of one, within bounded memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.data.items import Damaged
from taichu_jax.evals.hidden import at_rate
from taichu_jax.models.layers import Encoded
from taichu_jax.probing.encoder import Encoder, every_layer
from taichu_jax.probing.examples import Examples, Harm

BATCH = 32
MEMORY = 256 * 2**20  # bytes of stored states; heads need a few times as much while they learn
TOKENS = 64  # of one example, for heads that read tokens; neighbours are averaged

Read = Callable[[Encoded, tuple], Any]


def readable(encoder: Encoder, examples: Examples, rows: Sequence[int], harm: Harm) -> list[int]:
    """The rows without damaged ones, which are reported."""
    kept = []
    for i in rows:
        try:
            encoder.reader.read(examples, i)
        except Damaged as damage:
            harm.add(i, damage)
        else:
            kept.append(i)
    return kept


def inputs(encoder: Encoder, examples: Examples, rows: Sequence[int]) -> tuple[np.ndarray, ...]:
    """The arrays [B, ...] of some examples."""
    read = [encoder.reader.read(examples, i) for i in rows]
    return tuple(np.stack(arrays) for arrays in zip(*read, strict=True))


def passed(encoder: Encoder, examples: Examples, rows: Sequence[int], read: Read) -> Iterator[Any]:
    """`read(Encoded, inputs)` of batches, on the host; the last one has its own rows only."""
    program = _program(encoder.hidden_states, read)
    for start in range(0, len(rows), BATCH):
        some = list(rows[start : start + BATCH])
        padded = some + [some[-1]] * (BATCH - len(some))
        found = jax.device_get(program(encoder.params, inputs(encoder, examples, padded)))
        count = len(some)
        yield jax.tree.map(lambda x, count=count: x[:count], found)


def gathered(encoder: Encoder, examples: Examples, rows: Sequence[int], read: Read) -> Any:
    """All of `passed` as one tree of arrays [N, ...]."""
    batches = list(passed(encoder, examples, rows, read))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def pooled(encoder: Encoder, examples: Examples, rows: Sequence[int]) -> list[np.ndarray]:
    """One vector for every example, [N, D] float32, of every layer."""
    return list(gathered(encoder, examples, rows, encoder.pool))


def tokens(
    encoder: Encoder, examples: Examples, rows: Sequence[int], layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """(float16 [N, T, D], bool [N, T]) of a layer; T is at most TOKENS."""
    return gathered(encoder, examples, rows, _few_tokens(layer))


def affordable(values: int) -> int:
    """How many examples of so many numbers, two bytes each, fit into MEMORY."""
    return max(1, MEMORY // (2 * max(1, values)))


@functools.cache
def _few_tokens(layer: int) -> Read:
    def read(encoded, arrays):
        del arrays
        states = every_layer(encoded)[layer].astype(jnp.float32)
        every = -(-states.shape[1] // TOKENS)
        slow, real = at_rate(states, encoded.mask, every)
        return slow.astype(jnp.float16), real

    return read


@functools.lru_cache(maxsize=64)
def _program(hidden_states, read: Read):
    """One compiled program for an encoder's trained and untrained weights."""
    return jax.jit(lambda params, arrays: read(hidden_states(params, arrays), arrays))
