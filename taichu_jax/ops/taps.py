"""What a convolution over time sees, side by side, so that it becomes one product of matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def taps(
    x: jax.Array, size: int, *, stride: int = 1, dilation: int = 1, before: int = 0
) -> jax.Array:
    """[B, ceil(T / stride), size * C]: for all i < size, x [B, T, C] at n stride + i dilation - before.

    Zeros beyond both ends. A stride and a dilation do not go together.
    """
    batch, steps, channels = x.shape
    if stride == 1:
        after = (size - 1) * dilation - before
        padded = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (before, after, 0), (0, 0, 0)))
        pieces = [padded[:, i * dilation : i * dilation + steps] for i in range(size)]
        return jnp.concatenate(pieces, axis=-1)
    if dilation != 1:
        raise ValueError(f"dilation={dilation}: must be 1 with stride={stride}")
    # Groups of `stride` neighbours, without overlap; a window lies in a few neighbouring groups.
    count, groups = -(-steps // stride), -(-size // stride)
    after = (count + groups - 1) * stride - steps - before
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (before, after, 0), (0, 0, 0)))
    padded = padded.reshape(batch, count + groups - 1, stride * channels)
    pieces = [padded[:, i : i + count] for i in range(groups)]
    return jnp.concatenate(pieces, axis=-1)[..., : size * channels]
