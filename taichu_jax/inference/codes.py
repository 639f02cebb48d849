"""Writing the codes of pictures and of sounds with a `CodeDecoder` that keeps a cache.

    c_i ~ filter(P(v | c_<i, memory)),  all stages of a step at once

Pure functions with static shapes, as in decoding.py: a row's result depends on its own memory, key and
number, on nothing else in the batch, and not on the room. Stages of a sound are delayed as in
training (ops/delay.py), and handed back side by side, without the end.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.inference.decoding import GREEDY, Sampling, attending, draw
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.layers import Encoded
from taichu_jax.ops.delay import step_count
from taichu_jax.ops.lengths import within, zero_beyond


def longest(decoder: CodeDecoder) -> int:
    """Tokens of the longest sound that a decoder can write: its steps without delays and end."""
    return decoder.length - step_count(0, decoder.stages, decoder.ends)


def write_picture_codes(
    nets,
    name: str,
    memory: Encoded,
    grid: tuple[int, int],
    *,
    sampling: Sampling | None = None,
    key: jax.Array | None = None,
    rows: jax.Array | None = None,
    language: jax.Array | None = None,
) -> jax.Array:
    """Codes int32 [B, h, w] of a picture for every row of memory.

    Args:
      name: a `CodeDecoder` of one stage and without an end.
      grid: (h, w), that of the decoder.
      sampling: by default the likeliest codes.
      key: of the randomness; row i at step p draws from a key of its own.
      rows: int32 [B], the numbers of the rows for that; 0, 1, ... by default.
      language: int32 [B], for decoders that are told a language.

    Raises:
      UserError: the network writes no pictures, or pictures of another grid.
    """
    network, (height, width) = _network(nets, name), grid
    if network.stages != 1 or network.ends:
        raise UserError(
            f"network {name!r}: stages={network.stages}, ends={network.ends} is no decoder of "
            "pictures; valid: stages=1, ends=False"
        )
    valid = network.grid is None and height * width <= network.length
    if not valid and (height, width) != network.grid:
        raise UserError(f"network {name!r}: writes no grid of {height} x {width}; {_room(network)}")
    codes, _ = _write(nets, name, memory, height * width, None, sampling, key, rows, language)
    return codes.reshape(-1, height, width)


def write_voice_codes(
    nets,
    name: str,
    memory: Encoded,
    length: int,
    *,
    limit: jax.Array | int | None = None,
    sampling: Sampling | None = None,
    key: jax.Array | None = None,
    rows: jax.Array | None = None,
    language: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(codes int32 [B, length, stages], 0 behind the end; lengths int32 [B], tokens of each sound).

    A sound has at least one token. One that does not end by itself has as many as may be.

    Args:
      name: a `CodeDecoder`.
      length: room for so many tokens; see `longest`.
      limit: a sound has at most so many, `length` by default; 1 or more.
      sampling, key, rows, language: as in `write_picture_codes`; every stage draws from its own key.

    Raises:
      UserError: the network writes no codes, or not so many.
    """
    network = _network(nets, name)
    if not 1 <= length <= longest(network):
        raise UserError(
            f"network {name!r}: cannot write {length} tokens; valid: 1 to {longest(network)}"
        )
    return _write(nets, name, memory, length, limit, sampling, key, rows, language)


def _write(
    nets, name, memory, length, limit, sampling, key, rows, language
) -> tuple[jax.Array, jax.Array]:
    network, how = _network(nets, name), sampling or GREEDY
    batch, stages, end = memory.tokens.shape[0], network.stages, network.end_id
    delays, steps = jnp.arange(stages), step_count(length, stages, network.ends)
    decoder = attending(nets, name, steps, ids=(stages,))
    limit = jnp.minimum(length if limit is None else limit, length)
    numbers = jnp.arange(batch) if rows is None else rows
    key = jax.random.key(0) if key is None else key
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(numbers)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    # What is written at step i stands at i + 1; in front of it, what is read first.
    ids = jnp.full((batch, steps + 1, stages), network.start_id, jnp.int32)

    def unfinished(carry):
        i, _, lengths, _ = carry
        return i < lengths.max() + stages - 1

    def further(carry):
        i, ids, lengths, cache = carry
        logits, cache = decoder.step(cache, jnp.take(ids, i, axis=1), i)
        free = network.possible()
        if end is not None:
            free &= (i > 0) | (jnp.arange(network.choices) != end)
        logits = jnp.where(free, logits.astype(jnp.float32), -jnp.inf)
        here = fold(keys, i)
        each = jax.vmap(fold, (None, 0), 1)(here, delays)  # [B, stages]
        drawn = draw(logits.reshape(batch * stages, -1), how, each.reshape(-1))
        chosen = drawn.reshape(batch, stages)
        if end is not None:
            lengths = jnp.where((chosen[:, 0] == end) & (i < lengths), i, lengths)
        real = (i >= delays) & (i - delays < lengths[:, None])
        written = jnp.where(real, chosen, network.start_id)
        if end is not None:
            # Also where the limit cuts: the stages that lag behind hear that it is over.
            written = written.at[:, 0].set(jnp.where(i == lengths, end, written[:, 0]))
        return i + 1, ids.at[:, i + 1].set(written), lengths, cache

    lengths = jnp.broadcast_to(limit, (batch,)).astype(jnp.int32)
    cache = decoder.start(memory, language)
    start = (jnp.asarray(0), ids, lengths, cache)
    _, ids, lengths, _ = jax.lax.while_loop(unfinished, further, start)
    codes, _ = network.undelayed(ids[:, 1:])
    return zero_beyond(codes, within(lengths, length)), lengths


def _network(nets, name: str) -> CodeDecoder:
    network = nets.module(name)
    if not isinstance(network, CodeDecoder):
        kind = type(network).__name__
        raise UserError(f"network {name!r} is a {kind}, which writes no codes; valid: CodeDecoder")
    return network


def _room(network: CodeDecoder) -> str:
    if network.grid is None:
        return f"valid: up to {network.length} codes"
    return f"valid: {network.grid[0]} x {network.grid[1]}"
