"""An adversary's losses, and how much of it a decoder bears (VQGAN, arXiv 2012.09841, section 3.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

LARGEST_WEIGHT = 1e4  # of the authors' code


def hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's loss [B], 1/2 mean max(0, 1 - D(x)) + 1/2 mean max(0, 1 + D(y)); float32.

    Args:
      real, fake: scores [B, ...] of pictures x and of reconstructions y.
    """
    right = jax.nn.relu(1.0 - real.astype(jnp.float32))
    wrong = jax.nn.relu(1.0 + fake.astype(jnp.float32))
    return 0.5 * (example_mean(right) + example_mean(wrong))


def example_mean(values: jax.Array) -> jax.Array:
    """float32 [B], the mean of every example of `values` [B, ...]."""
    return values.astype(jnp.float32).reshape(len(values), -1).mean(-1)


def last_layer_norm(features: jax.Array, gradient: jax.Array, size: int) -> jax.Array:
    """|dL / dK|, the norm of a loss's gradient at the kernel K of the last convolution.

    That layer is linear in its kernel, so its input and the gradient at its output are enough: K
    itself is not needed.

    Args:
      features: [B, H, W, C], what the layer read; stride 1, zeros around ('SAME').
      gradient: [B, H, W, O], dL / d(output).
      size: of the kernel, in pixels.
    """
    features, gradient = features.astype(jnp.float32), gradient.astype(jnp.float32)

    def layer(kernel):
        return jax.lax.conv_general_dilated(
            features, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    kernel = jax.ShapeDtypeStruct((size, size, features.shape[-1], gradient.shape[-1]), jnp.float32)
    (at_kernel,) = jax.linear_transpose(layer, kernel)(gradient)
    return jnp.linalg.norm(at_kernel)


def adaptive_weight(reconstruction: jax.Array, adversary: jax.Array, delta: float) -> jax.Array:
    """|g_rec| / (|g_gan| + delta), at most 1e4, without a gradient."""
    weight = jnp.clip(reconstruction / (adversary + delta), 0.0, LARGEST_WEIGHT)
    return jax.lax.stop_gradient(weight)
