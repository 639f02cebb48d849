"""Pictures as rows of patches, and which patches a masked autoencoder keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def centred(images: jax.Array) -> jax.Array:
    """Pixels of [0, 1] in [-1, 1], the scale that image networks here read and predict."""
    return (images - 0.5) / 0.5


def uncentred(images: jax.Array) -> jax.Array:
    """The inverse of `centred`."""
    return images * 0.5 + 0.5


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """[B, N, patch * patch * 3] of images [B, H, W, 3].

    Patches are in reading order (rows first); within a patch: pixel rows, pixel columns, colours.
    """
    batch, height, width, colours = images.shape
    if height % patch or width % patch:
        raise ValueError(f"images of {height} x {width} pixels, but patch={patch}")
    rows, columns = height // patch, width // patch
    grid = images.reshape(batch, rows, patch, columns, patch, colours)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch * patch * colours)


def unpatchify(patches: jax.Array, patch: int, rows: int | None = None) -> jax.Array:
    """The inverse of `patchify`: [B, H, W, 3].

    Args:
      patches: [B, N, patch * patch * 3].
      patch: its side in pixels.
      rows: patches from top to bottom; a square picture by default.
    """
    batch, count, values = patches.shape
    rows = round(count**0.5) if rows is None else rows
    columns = count // rows
    if rows * columns != count:
        raise ValueError(f"{count} patches do not make {rows} whole rows")
    colours = values // patch**2
    grid = patches.reshape(batch, rows, columns, patch, patch, colours)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * patch, columns * patch, colours)


def standardised(patches: jax.Array, epsilon: float = 1e-6) -> tuple[jax.Array, ...]:
    """(z, mean, deviation), where z = (patches - mean) / deviation over the last axis.

    The variance is the unbiased one (divided by n - 1), as in the released code of MAE.
    """
    patches = patches.astype(jnp.float32)
    mean = patches.mean(-1, keepdims=True)
    deviation = jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + epsilon)
    return (patches - mean) / deviation, mean, deviation


def keep_some(rng: jax.Array, batch: int, patches: int, count: int) -> tuple[jax.Array, jax.Array]:
    """(keep int32 [batch, count], masked bool [batch, patches]): exactly `count` stay per picture.

    Every subset is equally likely, and pictures draw independently.
    """
    order = jnp.argsort(jax.random.uniform(rng, (batch, patches)), axis=-1).astype(jnp.int32)
    rank = jnp.argsort(order, axis=-1)
    return order[:, :count], rank >= count
