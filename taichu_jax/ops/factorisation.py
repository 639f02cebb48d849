"""What XLNet predicts, and in which order (arXiv 1906.08237, sections 2.3, 2.4 and 3.1).

A text is cut into stretches of K L tokens, L drawn anew for each, and somewhere in each of them a span of
L tokens is to be predicted. These come last in an order that is otherwise random; whatever stands before
a token in that order is what it is predicted from.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def predicted_spans(
    rng: jax.Array, allowed: jax.Array, *, one_in: int = 6, longest: int = 5
) -> jax.Array:
    """bool [B, N], true where a token is to be predicted: each that is `allowed`, with chance 1/one_in.

    L is uniform over 1, ..., `longest`, and so is a span's place in its stretch of one_in * L tokens. A
    row begins somewhere in a stretch, as it does when it is cut out of an endless text, so that chances
    are equal at its ends too. Long stretches are cut more often, hence the weights of the first L.
    """
    batch, size = allowed.shape
    of_first, of_others, at, within = jax.random.split(rng, 4)
    count = -(-(size - 1) // one_in) + 1  # enough, if every stretch is the shortest
    weights = jnp.log(jnp.arange(1, longest + 1))
    first = 1 + jax.random.categorical(of_first, weights, shape=(batch, 1))
    others = jax.random.randint(of_others, (batch, count - 1), 1, longest + 1)
    lengths = jnp.concatenate([first, others], axis=1)
    stretches = one_in * lengths
    cut = jax.random.randint(at, (batch, 1), 0, stretches[:, :1])
    begins = jnp.cumsum(stretches, axis=1) - stretches - cut
    begins += jax.random.randint(within, lengths.shape, 0, stretches - lengths + 1)
    place = jnp.arange(size)[None, :, None]
    inside = (begins[:, None] <= place) & (place < (begins + lengths)[:, None])
    return inside.any(-1) & allowed


def most_predicted(size: int, *, one_in: int = 6, longest: int = 5) -> int:
    """The most that `predicted_spans` ever chooses of `size` tokens: two stretches are not whole."""
    return min(size, size // one_in + 2 * longest)


def random_order(rng: jax.Array, predicted: jax.Array) -> jax.Array:
    """int32 [B, N], every token's place in a random order in which those to be predicted come last."""
    noise = jax.random.uniform(rng, predicted.shape) + predicted
    return jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)


def seen_from(order: jax.Array, predicted: jax.Array, context: str) -> jax.Array:
    """bool [B, N, N], true where a row's token is predicted from a column's.

    Args:
      order: from `random_order`.
      context: 'ordered': tokens see what comes before them; 'open': and those that are not to be
        predicted all see each other.
    """
    see = order[:, None, :] < order[:, :, None]
    if context == "open":
        see |= ~predicted[:, None, :] & ~predicted[:, :, None]
    return see


def first_true(where: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """(int32 [B, count], bool [B, count]): the first places where `where` [B, N] is true, and which are.

    Rows with fewer end with other places.
    """
    places = jnp.argsort(~where, axis=-1, stable=True)[:, :count]
    return places, jnp.arange(count) < where.sum(-1, keepdims=True)
