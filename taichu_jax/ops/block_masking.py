"""Masks of patches in blocks (BEiT, arXiv 2106.08254, algorithm 1, as its authors' code draws them)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

TRIES = 10  # blocks in a row that do not fit, before a picture's mask is final


def block_mask(
    rng: jax.Array,
    batch: int,
    rows: int,
    columns: int,
    *,
    most: int,
    least: int = 16,
    aspect: float = 0.3,
    blocks: int = 100,
) -> jax.Array:
    """bool [batch, rows * columns], true at hidden patches: at most `most` of every picture.

    Blocks are laid one after the other, and may overlap. A block of s patches, s uniform between `least`
    and what is still to hide (`least`, where that is less), has the sides round(sqrt(s r)) and
    round(sqrt(s / r)), ln r uniform between those of `aspect` and 1 / `aspect`, and every place equally
    likely. It is laid if it is smaller than the picture along both axes, hides something new, and not
    more than is still to hide. After 10 in a row that are not, the mask stays as it is: its count is
    `most` or a little below.

    Args:
      blocks: how many are drawn at all.
    """
    draws = jax.random.uniform(rng, (blocks, 4, batch))
    y, x = jnp.arange(rows)[None, :, None], jnp.arange(columns)[None, None, :]
    log_aspect = abs(math.log(aspect))

    def column(values):
        return values[:, None, None]

    def lay(state, draw):
        mask, misses = state
        left = most - mask.sum((1, 2))
        area = least + draw[0] * jnp.maximum(left - least, 0)
        ratio = jnp.exp((2.0 * draw[1] - 1.0) * log_aspect)
        height, width = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
        inside = (height < rows) & (width < columns)
        top = jnp.floor(draw[2] * (rows - height + 1))
        first = jnp.floor(draw[3] * (columns - width + 1))
        block = (y >= column(top)) & (y < column(top + height))
        block &= (x >= column(first)) & (x < column(first + width))
        new = (block & ~mask).sum((1, 2))
        laid = inside & (new > 0) & (new <= left) & (misses < TRIES)
        # a mask that is final stays so; one that is whole has nothing left to lay
        misses = jnp.where(laid, 0, misses + 1)
        misses = jnp.where(state[1] >= TRIES, TRIES, misses)
        return (mask | (block & column(laid)), misses), None

    start = jnp.zeros((batch, rows, columns), bool), jnp.zeros(batch, jnp.int32)
    (mask, _), _ = jax.lax.scan(lay, start, draws)
    return mask.reshape(batch, rows * columns)
