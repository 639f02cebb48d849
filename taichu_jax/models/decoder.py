"""What the decoders of words (text.py) and of codes (code_decoder.py) share."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.cache import Cache, Written, empty, past
from taichu_jax.models.layers import Dense
from taichu_jax.models.transformer import Transformer


def room(model: Any, batch: int, length: int, cross: bool) -> Cache:
    """A cache for `batch` rows of up to `length` positions of a model with depth, heads, width, stack."""
    return empty(
        Written,
        batch=batch,
        length=length,
        width=model.width,
        heads=model.heads,
        stacks=Transformer(model.depth, model.heads, stack=model.stack).cache_stacks(),
        cross=cross,
    )


def told(module: nn.Module, x: jax.Array, language: jax.Array | None, languages: int) -> jax.Array:
    """x [B, L, D] plus the embedding of a row's language, int32 [B] (XLM, arXiv 1901.07291).

    Raises:
      UserError: `languages` is not 0 and there is no language.
    """
    if not languages:
        return x
    if language is None:
        raise UserError(f"languages={languages}: this decoder must be told the language")
    normal = nn.initializers.normal(0.02)
    return (
        x + module.param("language_embedding", normal, (languages, x.shape[-1]))[language][:, None]
    )


def write(
    transformer: Transformer,
    x: jax.Array,
    mask: jax.Array | None,
    memory: jax.Array | None,
    memory_mask: jax.Array,
    cache: Cache | None,
    at: jax.Array | int,
) -> tuple[jax.Array, Cache | None]:
    """(states [B, L, D], the new cache if there is one) of a causal transformer over a memory.

    Called from a module's compact method, since a memory of another width gets a projection.

    Args:
      x: [B, L, D], what was written before each position.
      mask: bool [B, L], true where a position is real; None with a cache.
      memory: [B, M, E]; with a cache it is needed in the first call only.
      memory_mask: bool [B, M].
      cache, at: what is known of the positions before `at`.
    """
    if memory is not None:
        if memory.shape[-1] != x.shape[-1]:
            memory = Dense(x.shape[-1], name="memory")(memory)
        x = x.astype(memory.dtype)
    if cache is not None:
        seen = past(cache, x.shape[0], x.shape[1], at)
        x, _, cache = transformer(x, seen, memory, memory_mask, cache=cache, at=at)
        return x, cache
    if mask is None:
        raise ValueError("mask=None: only with a cache")
    x, _ = transformer(x, mask, memory, memory_mask)
    return x, None
