"""How close a picture is to another: PSNR and SSIM."""

from __future__ import annotations

import jax
import jax.numpy as jnp

WINDOW, DEVIATION = 11, 1.5  # of SSIM's Gaussian, in pixels
C1, C2 = 0.01**2, 0.03**2


def psnr(pictures: jax.Array, others: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio [B] in dB of pictures [B, H, W, C] in [0, 1]: -10 log10 of the error.

    The mean squared error is limited from below to 1e-10, so equal pictures give 100 dB.
    """
    difference = pictures.astype(jnp.float32) - others.astype(jnp.float32)
    return -10.0 * jnp.log10(jnp.maximum(jnp.square(difference).mean((1, 2, 3)), 1e-10))


def ssim(pictures: jax.Array, others: jax.Array) -> jax.Array:
    """Structural similarity [B] of pictures [B, H, W, C] in [0, 1]; 1 where they are equal.

        (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))

    with means, variances and covariance in a Gaussian window of 11 x 11 pixels and deviation 1.5, in
    every channel, averaged over all places where the window is inside the picture and over channels
    (Wang et al., Image quality assessment, IEEE TIP 13(4), 2004; C1 and C2 for a range of 1).

    Raises:
      ValueError: the pictures are smaller than the window.
    """
    if min(pictures.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of {WINDOW} pixels and more, got {pictures.shape}")
    x, y = pictures.astype(jnp.float32), others.astype(jnp.float32)
    # Without the picture's own mean: variances as differences of squares lose digits with it.
    whole_x, whole_y = (z.mean((1, 2), keepdims=True) for z in (x, y))
    x, y = x - whole_x, y - whole_y
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + whole_x, mean_y + whole_y
    similar = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    similar /= (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return similar.mean((1, 2, 3))


def _windowed(x: jax.Array) -> jax.Array:
    """Gaussian means of [B, H, W, C] at every place that the whole window fits: [B, H-10, W-10, C]."""
    offsets = jnp.arange(WINDOW) - WINDOW // 2
    weights = jnp.exp(-(offsets**2) / (2 * DEVIATION**2))
    weights /= weights.sum()
    for axis in (1, 2):
        length = x.shape[axis] - WINDOW + 1
        parts = (
            weights[i] * jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(WINDOW)
        )
        x = sum(parts, jnp.zeros(()))
    return x
