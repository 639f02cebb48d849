"""Pure builders of masks: functions of a random key and shapes, tested on exact statistics."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import FIRST_TOKEN, MASK


def choose_exactly(rng: jax.Array, allowed: jax.Array, count: jax.Array) -> jax.Array:
    """bool [B, N]: `count` [B] positions of every row, uniformly among those that are `allowed`."""
    noise = jnp.where(allowed, jax.random.uniform(rng, allowed.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
    return (rank < count[:, None]) & allowed


def share_of(allowed: jax.Array, rate: float) -> jax.Array:
    """int32 [B]: round(rate * allowed positions), at least 1 where there is any."""
    available = allowed.sum(-1)
    return jnp.minimum(jnp.maximum(jnp.round(rate * available), 1), available).astype(jnp.int32)


def corrupt_tokens(
    rng: jax.Array,
    tokens: jax.Array,
    chosen: jax.Array,
    *,
    mask_token: int,
    first_token: int,
    vocab_size: int,
    mask_rate: float = 0.8,
    random_rate: float = 0.1,
) -> jax.Array:
    """BERT's corruption of the chosen tokens: 80 % [MASK], 10 % a random token, 10 % unchanged.

    Args:
      chosen: bool, of the shape of `tokens`.
      first_token: random tokens are drawn from [first_token, vocab_size), above the special ones.
    """
    which, draw = jax.random.split(rng)
    dice = jax.random.uniform(which, tokens.shape)
    random = jax.random.randint(draw, tokens.shape, first_token, vocab_size, tokens.dtype)
    changed = jnp.where(dice < mask_rate, mask_token, tokens)
    changed = jnp.where((dice >= mask_rate) & (dice < mask_rate + random_rate), random, changed)
    return jnp.where(chosen, changed, tokens)


def hide_words(
    rng: jax.Array, tokens: jax.Array, present: jax.Array, *, rate: float, vocab_size: int
) -> tuple[jax.Array, jax.Array]:
    """(corrupted tokens int32 [B, L], bool [B, L]: `rate` of a row's words, hidden as BERT does it).

    Args:
      present: bool [B, L], the tokens that are there; special ones among them are never hidden.
    """
    allowed = present & (tokens >= FIRST_TOKEN)
    chosen = choose_exactly(fold_name(rng, "positions"), allowed, share_of(allowed, rate))
    corrupted = corrupt_tokens(
        fold_name(rng, "corruption"),
        tokens,
        chosen,
        mask_token=MASK,
        first_token=FIRST_TOKEN,
        vocab_size=vocab_size,
    )
    return corrupted, chosen
