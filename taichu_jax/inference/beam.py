"""Beam search with a length penalty (GNMT, arXiv 1609.08144, section 7).

    argmax_y  log P(y | memory) / lp(y),    lp(y) = ((5 + |y|) / 6)^a

|y| counts the ids that were written, the end among them. Texts without an end that fill the room compete
too. The search of a row stops when no text in the beam can become better than the worst of its finished
ones, which is exact, as log P only falls and lp only grows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.inference.decoding import Decoder, Ids, Text

PyTree = Any
_NEVER = -1e9  # a score that no text has, yet finite, so that differences are


def penalty(count: jax.Array | int, alpha: jax.Array | float) -> jax.Array:
    """lp of `count` ids."""
    return ((5.0 + count) / 6.0) ** alpha


def search(
    decoder: Decoder,
    cache: PyTree,
    prompt: jax.Array,
    length: int,
    *,
    beams: int,
    alpha: jax.Array | float = 0.6,
    limit: jax.Array | int | None = None,
    ids: Ids | None = None,
) -> tuple[Text, jax.Array]:
    """(the best texts: ids [B, beams, L] and log P [B, beams], their scores), best first.

    Places for which there was no text score below -1e8.

    Args:
      cache: from `decoder.start`, of B rows.
      prompt: int32 [B, P], P >= 1.
      length: of the result.
      alpha: a, 0 or more; 0.6 in the paper.
      limit: a text has at most so many ids, `length` by default.

    Raises:
      UserError: no beam.
    """
    if beams < 1:
        raise UserError(f"beams={beams}: must be 1 or more")
    spelling = ids or Ids()
    batch, known = prompt.shape
    limit = jnp.minimum(length if limit is None else limit, length)

    def flat(x):
        return x.reshape(batch * beams, *x.shape[2:])

    def step(tokens, i, cache):
        """log P of every next id, float32 [B, beams, V], given position i - 1."""
        tokens = flat(tokens)
        logits, new = decoder.step(cache, jnp.take(tokens, i - 1, axis=1), i - 1)
        free = spelling.allowed(logits.shape[-1], tokens, i)
        log_p = jax.nn.log_softmax(jnp.where(free, logits.astype(jnp.float32), -jnp.inf))
        return jnp.maximum(log_p, _NEVER).reshape(batch, beams, -1), new

    tokens = jnp.full((batch, beams, length), spelling.filler, jnp.int32)
    tokens = tokens.at[..., :known].set(prompt[:, None])
    cache = decoder.known(cache, prompt[:, :-1])
    cache = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), cache)
    alive = jnp.full((batch, beams), _NEVER).at[:, 0].set(0.0)  # at first all beams are the same
    ended = (tokens, jnp.full((batch, beams), _NEVER), jnp.full((batch, beams), _NEVER))

    def unfinished(carry):
        i, _, alive, (_, _, scores), _ = carry
        possible = alive[:, 0] / penalty(limit - known, alpha)
        return (i < limit) & (possible > scores[:, -1]).any()

    def further(carry):
        i, tokens, alive, ended, cache = carry
        log_p, new = step(tokens, i, cache)
        size = log_p.shape[-1]
        total = (alive[..., None] + log_p).reshape(batch, -1)
        # Of twice as many at least half go on: each beam has but one end.
        total, place = jax.lax.top_k(total, min(2 * beams, beams * size))
        source, chosen = place // size, (place % size).astype(jnp.int32)
        longer = jnp.take_along_axis(tokens, source[..., None], axis=1).at[..., i].set(chosen)
        ends = jnp.zeros(chosen.shape, bool) if spelling.end is None else chosen == spelling.end
        possible = total > _NEVER / 2
        if spelling.end is not None:
            score = jnp.where(ends & possible, total / penalty(i + 1 - known, alpha), _NEVER)
            ended = _best(beams, ended, (longer, total, score))
        alive, order = jax.lax.top_k(_padded(jnp.where(ends, _NEVER, total), beams), beams)
        order = jnp.minimum(order, chosen.shape[1] - 1)
        tokens = jnp.take_along_axis(longer, order[..., None], axis=1)
        rows = jnp.take_along_axis(source, order, axis=1) + beams * jnp.arange(batch)[:, None]
        rows = rows.reshape(-1)
        cache = jax.tree.map(lambda x, old: x if x is old else x[rows], new, cache)
        return i + 1, tokens, alive, ended, cache

    i, tokens, alive, ended, _ = jax.lax.while_loop(
        unfinished, further, (jnp.asarray(known), tokens, alive, ended, cache)
    )
    # Those that were stopped by the limit; in rows that stopped before, they are no longer needed.
    full = jnp.where((alive > _NEVER / 2) & (i >= limit), alive / penalty(i - known, alpha), _NEVER)
    tokens, log_p, scores = _best(beams, ended, (tokens, alive, full))
    return Text(tokens, log_p), scores


def _best(count: int, *sets: tuple[jax.Array, jax.Array, jax.Array]):
    """The `count` best of all, each set being (ids [B, n, L], log P [B, n], score [B, n])."""
    tokens, log_p, scores = (jnp.concatenate(parts, axis=1) for parts in zip(*sets, strict=True))
    scores, order = jax.lax.top_k(scores, count)
    tokens = jnp.take_along_axis(tokens, order[..., None], axis=1)
    return tokens, jnp.take_along_axis(log_p, order, axis=1), scores


def _padded(scores: jax.Array, size: int) -> jax.Array:
    room = max(0, size - scores.shape[1])
    return jnp.pad(scores, ((0, 0), (0, room)), constant_values=_NEVER)
