"""Writing ids one after the other, by chance or the likeliest, with a decoder that keeps a cache.

    t_i ~ filter(P(v | t_<i, memory)),  until the end

Pure functions with static shapes: rows that have ended are filled up, and the loop ends with the last
row. The number of ids is an argument of the compiled program, so a room of one length serves every text
that fits. Beams are in beam.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.ops.vocabulary import FIRST_TOKEN, PAD, SEP

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What can be written with: networks of any kind, seen as two functions.

    Attributes:
      start: from whatever is decoded to a cache, a pytree with the rows on the first axis of every array.
      step: from (cache, ids int32 [B] at a position, that position) to (logits [B, V] of the next ids,
        cache). Arrays that it hands back untouched are taken to be the same for all beams of a row.
      read: from (cache, ids int32 [B, N] at positions 0 to N - 1) to the cache that N steps would give,
        at once; None where only steps will do.
    """

    start: Callable[..., PyTree]
    step: Callable[[PyTree, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
    read: Callable[[PyTree, jax.Array], PyTree] | None = None

    def known(self, cache: PyTree, ids: jax.Array) -> PyTree:
        """The cache after ids int32 [B, N] at positions 0 to N - 1."""
        if ids.shape[1] == 0:
            return cache
        if self.read is not None:
            return self.read(cache, ids)

        def one(i, cache):
            return self.step(cache, jnp.take(ids, i, axis=1), i)[1]

        return jax.lax.fori_loop(0, ids.shape[1], one, cache)


def attending(
    nets, name: str, length: int, method: str | None = None, ids: tuple[int, ...] = ()
) -> Decoder:
    """A decoder of texts or codes that attends over a memory, for `length` steps at most.

    start(memory: Encoded, language int32 [B] or None).

    Args:
      method: the network's, 'decode' for an `EncoderDecoder`.
      ids: the shape of what is written at a step: () for a `TextDecoder`, (stages,) for a `CodeDecoder`.
    """

    def start(memory: Encoded, language: jax.Array | None = None) -> PyTree:
        batch = memory.tokens.shape[0]
        told = {} if language is None else {"language": language}
        nothing = jnp.full((batch, 1, *ids), PAD, jnp.int32)
        room = nets(name, batch, length, method="start")
        # The states of this one step are not used, and so not computed: only keys and values of memory.
        _, cache = nets(
            name,
            nothing,
            None,
            memory.tokens,
            memory.mask,
            method=method,
            cache=room,
            at=0,
            **told,
        )
        blocks = tuple(
            block.replace(own=jax.tree.map(jnp.zeros_like, block.own)) for block in cache
        )
        return {"blocks": blocks, "mask": memory.mask, **told}

    def further(cache, written, position):
        told = {"language": cache["language"]} if "language" in cache else {}
        logits, blocks = nets(
            name,
            written,
            None,
            None,
            cache["mask"],
            method=method,
            cache=cache["blocks"],
            at=position,
            **told,
        )
        return logits, cache | {"blocks": blocks}

    def step(cache, written, position):
        logits, cache = further(cache, written[:, None], position)
        return logits[:, 0], cache

    def read(cache, written):
        return further(cache, written, 0)[1]

    return Decoder(start, step, None if _crowded(nets, name) else read)


def continuing(nets, name: str, length: int) -> Decoder:
    """A causal `TextEncoder`, a language model; start(rows: int), for `length` ids at most."""

    def start(rows: int) -> PyTree:
        room = nets(name, rows, length, method="start")
        _, cache = nets(
            name, jnp.full((rows, 1), PAD, jnp.int32), jnp.asarray(0), room, method="further"
        )
        return jax.tree.map(jnp.zeros_like, cache)

    def step(cache, ids, position):
        states, cache = nets(name, ids[:, None], position, cache, method="further")
        return nets(name, states[:, 0], method="logits"), cache

    def read(cache, ids):
        return nets(name, ids, jnp.asarray(0), cache, method="further")[1]

    return Decoder(start, step, None if _crowded(nets, name) else read)


def _crowded(nets, name: str) -> bool:
    """Whether positions that are read together compete for experts, which those read alone do not."""
    return nets.module(name).stack.experts is not None


# ------------------------------------------------------------------------------------- choosing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ids:
    """What may be written.

    Attributes:
      first: ids from here on.
      end: the id that ends a row and may also be written; None if rows have no end.
      filler: what stands behind the end.
      no_repeat: no run of so many ids may come twice in a row; 0: any may. Where nothing else is left,
        anything may come.
    """

    first: int = FIRST_TOKEN
    end: int | None = SEP
    filler: int = PAD
    no_repeat: int = 0

    def __post_init__(self):
        if self.no_repeat < 0:
            raise UserError(f"no_repeat={self.no_repeat}: must be 0 or more")

    def allowed(self, size: int, ids: jax.Array, known: jax.Array) -> jax.Array:
        """bool [B, size]: what may come at position `known` of ids [B, L]."""
        every = jnp.arange(size)
        free = every >= self.first
        if self.end is not None:
            free |= every == self.end
        free = jnp.broadcast_to(free, (ids.shape[0], size))
        if not self.no_repeat or self.no_repeat > ids.shape[1]:
            return free
        new = free & ~repeats(size, ids, known, self.no_repeat)
        if self.end is not None:
            new |= every == self.end
        return jnp.where(new.any(-1, keepdims=True), new, free)


def repeats(size: int, ids: jax.Array, known: jax.Array, n: int) -> jax.Array:
    """bool [B, size]: ids that would end a run of n which is among the first `known` of a row already."""
    batch, length = ids.shape
    starts = jnp.arange(length - n + 1)
    same = jnp.broadcast_to(starts + n <= known, (batch, length - n + 1))
    for i in range(n - 1):
        last = jnp.take(ids, jnp.maximum(known - n + 1 + i, 0), axis=1)
        same &= ids[:, i : i + length - n + 1] == last[:, None]
    return jnp.zeros((batch, size), bool).at[jnp.arange(batch)[:, None], ids[:, n - 1 :]].max(same)


class Sampling(NamedTuple):
    """How an id is drawn; all may be arrays, so one compiled program serves them all.

    Attributes:
      temperature: logits are divided by it; 0 takes the likeliest.
      top_k: of the likeliest so many; 0: of all.
      top_p: of the fewest that have this probability together, given top_k (arXiv 1904.09751); 1: all.
    """

    temperature: float | jax.Array = 0.0
    top_k: int | jax.Array = 0
    top_p: float | jax.Array = 1.0

    def check(self) -> Sampling:
        """Itself.

        Raises:
          UserError: a value that means nothing.
        """
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature}: must be 0 or more")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k}: must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p}: must be above 0 and at most 1")
        return self


GREEDY = Sampling()


def filtered(logits: jax.Array, sampling: Sampling) -> jax.Array:
    """float32 [B, V]: logits of the distribution to draw from, -inf where nothing is drawn.

    Of equal logits those of lower ids come first, so that exactly k are left.
    """
    temperature = jnp.asarray(sampling.temperature, jnp.float32)
    scaled = logits.astype(jnp.float32) / jnp.where(temperature > 0, temperature, 1.0)
    order = jnp.argsort(-scaled, axis=-1)  # stable
    ranked = jnp.take_along_axis(scaled, order, axis=-1)
    k = jnp.where(jnp.asarray(sampling.top_k) > 0, sampling.top_k, logits.shape[-1])
    rank = jnp.arange(logits.shape[-1])
    ranked = jnp.where(rank < k, ranked, -jnp.inf)
    share = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(share, axis=-1) - share
    # A total of 1 may be rounded to less: with top_p 1 nothing goes.
    kept = (before < sampling.top_p) | (jnp.asarray(sampling.top_p) >= 1.0) | (rank == 0)
    ranked = jnp.where(kept, ranked, -jnp.inf)
    rows = jnp.arange(logits.shape[0])[:, None]
    return jnp.full(scaled.shape, -jnp.inf).at[rows, order].set(ranked)


def draw(logits: jax.Array, sampling: Sampling, keys: jax.Array) -> jax.Array:
    """int32 [B], an id of every row of logits [B, V], with a key for each row."""
    drawn = jax.vmap(jax.random.categorical)(keys, filtered(logits, sampling))
    greedy = jnp.asarray(sampling.temperature) == 0
    return jnp.where(greedy, logits.argmax(-1), drawn).astype(jnp.int32)


# -------------------------------------------------------------------------------------- writing


class Text(NamedTuple):
    """What was written.

    Attributes:
      ids: int32 [B, L], the prompt, what followed, the end, and filler.
      log_p: float32 [B], log P of what followed, without temperature and filters, among allowed ids.
    """

    ids: jax.Array
    log_p: jax.Array


def write(
    decoder: Decoder,
    cache: PyTree,
    prompt: jax.Array,
    length: int,
    *,
    limit: jax.Array | int | None = None,
    prompt_lengths: jax.Array | None = None,
    ids: Ids | None = None,
    sampling: Sampling | None = None,
    key: jax.Array | None = None,
    rows: jax.Array | None = None,
) -> Text:
    """Continues every row of a batch.

    Args:
      cache: from `decoder.start`.
      prompt: int32 [B, P], P >= 1, ids that are known already.
      length: of the result.
      limit: a row has at most so many ids, `length` by default.
      prompt_lengths: int32 [B] where prompts differ in length, each at least 1.
      sampling: by default the likeliest ids.
      key: of the randomness; row i at position p draws from a key of its own, so what is drawn for a row
        depends neither on the batch nor on the room.
      rows: int32 [B], the numbers of the rows for that; 0, 1, ... by default.
    """
    spelling, how = ids or Ids(), sampling or GREEDY
    batch, known = prompt.shape
    limit = jnp.minimum(length if limit is None else limit, length)
    given = jnp.full(batch, known, jnp.int32) if prompt_lengths is None else prompt_lengths
    real = jnp.arange(known) < given[:, None]
    tokens = jnp.full((batch, length), spelling.filler, jnp.int32)
    tokens = tokens.at[:, :known].set(jnp.where(real, prompt, spelling.filler))
    numbers = jnp.arange(batch) if rows is None else rows
    keys = jax.vmap(lambda row: jax.random.fold_in(_key(key), row))(numbers)

    def unfinished(carry):
        i, _, done, _, _ = carry
        return (i < limit) & ~done.all()

    def further(carry):
        i, tokens, done, log_p, cache = carry
        logits, cache = decoder.step(cache, jnp.take(tokens, i - 1, axis=1), i - 1)
        free = spelling.allowed(logits.shape[-1], tokens, i)
        logits = jnp.where(free, logits.astype(jnp.float32), -jnp.inf)
        here = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        chosen = draw(logits, how, here)
        gain = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=-1)[:, 0]
        writes = ~done & (i >= given)
        now = jnp.where(i < given, jnp.take(tokens, i, axis=1), spelling.filler)
        tokens = tokens.at[:, i].set(jnp.where(writes, chosen, now))
        if spelling.end is not None:
            done = done | (writes & (chosen == spelling.end))
        return i + 1, tokens, done, log_p + jnp.where(writes, gain, 0.0), cache

    first = 1
    if prompt_lengths is None:
        first, cache = known, decoder.known(cache, prompt[:, :-1])
    done, log_p = jnp.zeros(batch, bool), jnp.zeros(batch, jnp.float32)
    _, tokens, _, log_p, _ = jax.lax.while_loop(
        unfinished, further, (jnp.asarray(first), tokens, done, log_p, cache)
    )
    return Text(tokens, log_p)


def write_words(
    nets,
    name: str,
    memory: Encoded,
    prompt: jax.Array,
    length: int,
    language: jax.Array | None = None,
) -> jax.Array:
    """Token ids int32 [B, length]: the prompt, then the likeliest words, [SEP], and padding.

    Args:
      name: a `TextDecoder`, which attends over the states of memory.
      prompt: int32 [B, P], ids that are already known; [CLS] begins every text.
      language: int32 [B], for decoders that are told which language to write.
    """
    decoder = attending(nets, name, length)
    return write(decoder, decoder.start(memory, language), prompt, length).ids


def bucket(wanted: int, largest: int, smallest: int = 8) -> int:
    """The least of smallest, twice that, ..., largest that holds `wanted`: few shapes to compile.

    Raises:
      UserError: more is wanted than the largest.
    """
    if wanted > largest:
        raise UserError(f"{wanted} are wanted; at most {largest}")
    size = smallest
    while size < wanted:
        size *= 2
    return min(size, largest)


def _key(key: jax.Array | None) -> jax.Array:
    return jax.random.key(0) if key is None else key
