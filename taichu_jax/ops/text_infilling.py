"""How BART spoils texts (arXiv 1910.13461, section 2.2): spans become one [MASK] each, sentences change
places."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.lengths import within
from taichu_jax.ops.vocabulary import PAD


def poisson(rng: jax.Array, shape: tuple[int, ...], mean: float) -> jax.Array:
    """int32, Poisson numbers from one uniform number each: a table of the distribution up to 1e-7."""
    probabilities, k = [math.exp(-mean)], 0
    while k < mean or probabilities[-1] > 1e-8:
        k += 1
        probabilities.append(probabilities[-1] * mean / k)
    below = jnp.asarray(np.cumsum(probabilities), jnp.float32)
    uniform = jax.random.uniform(rng, shape)
    return (uniform[..., None] >= below).sum(-1).astype(jnp.int32)


def infill(
    rng: jax.Array,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    mask_token: int,
    rate: float = 0.3,
    mean: float = 3.0,
) -> tuple[jax.Array, jax.Array]:
    """Replaces spans of tokens with one `mask_token` each: (int32 [B, N], bool [B, N], true where real).

    Of the n tokens between the first and the last of a row, which stay, exactly ceil(rate n) are
    replaced. Lengths of spans are drawn until they are that many, and the last one is cut. Spans do not
    overlap, and every arrangement of them among the tokens that stay is as likely; a span of length 0
    is a `mask_token` where there was nothing. Insertions that would make a row longer than N are
    left out.

    Args:
      tokens: int32 [B, N]; real ones first.
      mask: bool [B, N], true where a token is.
      mean: the mean length of spans.
    """
    size = tokens.shape[1]
    of_lengths, of_places = jax.random.split(rng)
    count = mask.sum(-1)
    inner = jnp.maximum(count - 2, 0)
    budget = jnp.ceil(rate * inner - 1e-4).astype(jnp.int32)[:, None]
    draws = size + math.ceil(size / mean)  # more than it takes; the last one takes what is left
    lengths = poisson(of_lengths, (len(tokens), draws), mean).at[:, -1].set(size)
    before = jnp.cumsum(lengths, -1) - lengths
    used = before < budget
    lengths = jnp.where(used, jnp.minimum(lengths, budget - before), 0)
    hidden, replacing = lengths.sum(-1), used & (lengths > 0)
    room = size - count + hidden - replacing.sum(-1)
    inserting = used & (lengths == 0)
    inserting &= jnp.cumsum(inserting, -1) <= room[:, None]
    spans = replacing | inserting
    lengths = jnp.take_along_axis(lengths, jnp.argsort(~spans, axis=-1, stable=True), axis=-1)
    # A row is now a sequence of slots: the first token, spans and tokens that stay, the last token.
    slots = inner - hidden + spans.sum(-1)
    free = within(slots + 1, size) & (jnp.arange(size) > 0)
    noise = jnp.where(free, jax.random.uniform(of_places, tokens.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
    is_span = free & (rank < spans.sum(-1, keepdims=True))
    taken = jnp.where(is_span, jnp.take_along_axis(lengths, rank, axis=-1), 1)
    source = jnp.minimum(jnp.cumsum(taken, -1) - taken, size - 1)
    spoiled = jnp.where(is_span, mask_token, jnp.take_along_axis(tokens, source, axis=-1))
    real = within(count - inner + slots, size)
    return jnp.where(real, spoiled, PAD), real


def permute_sentences(rng: jax.Array, tokens: jax.Array, segments: jax.Array) -> jax.Array:
    """int32 [B, N]: the sentences of every row in random order, each whole, and then the padding.

    Args:
      segments: int32 [B, N]: 1, 2, ... by sentence, 0 for padding.
    """
    size = tokens.shape[1]
    noise = jax.random.uniform(rng, (tokens.shape[0], size + 1))
    rank = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
    rank = jnp.take_along_axis(rank, segments, axis=-1)
    place = jnp.where(segments > 0, rank, size + 1)
    return jnp.take_along_axis(tokens, jnp.argsort(place, axis=-1, stable=True), axis=-1)
