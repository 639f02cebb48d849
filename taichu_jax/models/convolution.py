"""Convolutions over time with weight normalisation (arXiv 1602.07868), as products of matrices.

A kernel is w = g v / ||v||, one length g for every output channel, which starts as that of v: normalised
weights start as the plain ones would. On CPUs a product of a matrix of windows is the fastest form of a
convolution with a stride or with few channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.ops.taps import taps

LECUN = nn.initializers.lecun_normal()


class Convolution(nn.Module):
    """x [B, T, C] -> [B, ceil(T / stride), features]; output n sees inputs around n * stride.

    Attributes:
      size: taps.
      stride, dilation: of the inputs; one of them is 1.
      groups: channels are split into so many independent convolutions.
      before: inputs before n * stride that output n sees; None for half of those that it sees.
      kernel_init: of v.
    """

    features: int
    size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    before: int | None = None
    kernel_init: nn.initializers.Initializer = LECUN

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, groups = x.shape[-1], self.groups
        if channels % groups or self.features % groups:
            raise UserError(
                f"groups={groups}: must divide the {channels} channels and {self.features} features"
            )
        shape = (self.size, channels // groups, self.features)
        kernel = _kernel(self, shape).astype(x.dtype)
        before = (self.size - 1) * self.dilation // 2 if self.before is None else self.before
        seen = taps(x, self.size, stride=self.stride, dilation=self.dilation, before=before)
        batch, steps = seen.shape[:2]
        if groups == 1:
            flat = seen.reshape(batch * steps, -1) @ kernel.reshape(-1, self.features)
        else:
            seen = seen.reshape(batch * steps, self.size, groups, -1)
            parts = kernel.reshape(self.size, channels // groups, groups, -1)
            flat = jnp.einsum("nkgc,kcgf->ngf", seen, parts).reshape(batch * steps, -1)
        flat += self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
        return flat.reshape(batch, steps, self.features)


class UpSampling(nn.Module):
    """A transposed convolution, x [B, T, C] -> [B, T * rate, features].

        y_n = b + sum_t x_t w_{n + c - t rate}

    Attributes:
      size: taps, a multiple of `rate`.
      cut: c, outputs that are left out in front; None for half of what the taps reach beyond a block, so
        that input t stands in the middle of what it makes; 0 for outputs that know no later input.
    """

    features: int
    rate: int
    size: int
    cut: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rate, size = self.rate, self.size
        if size % rate or (self.cut is None and (size - rate) % 2):
            raise UserError(
                f"size={size}: must be a multiple of the rate {rate}, and centred by an even difference"
            )
        batch, steps, channels = x.shape
        reach = size // rate
        # An output sees `reach` inputs, not `size`.
        start = nn.initializers.variance_scaling(rate, "fan_in", "truncated_normal")
        kernel = _kernel(self, (size, channels, self.features), start).astype(x.dtype)
        # Block s of the outputs, before the cut, is made of the inputs s, s - 1, ...
        padded = jnp.pad(x, ((0, 0), (reach - 1, reach - 1), (0, 0)))
        blocks = steps + reach - 1
        inputs = [padded[:, reach - 1 - i : reach - 1 - i + blocks] for i in range(reach)]
        seen = jnp.concatenate(inputs, axis=-1).reshape(batch * blocks, reach * channels)
        parts = kernel.reshape(reach, rate, channels, self.features).transpose(0, 2, 1, 3)
        y = seen @ parts.reshape(reach * channels, rate * self.features)
        y = y.reshape(batch, blocks * rate, self.features)
        cut = (size - rate) // 2 if self.cut is None else self.cut
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
        return y[:, cut : cut + steps * rate] + bias


def _kernel(module: nn.Module, shape: tuple[int, ...], start=None) -> jax.Array:
    """float32 g v / ||v|| of a module's parameters `kernel` (v) and `scale` (g)."""
    kernel = module.param("kernel", start or module.kernel_init, shape).astype(jnp.float32)
    norm = jnp.sqrt(jnp.square(kernel).sum((0, 1)) + 1e-12)
    scale = module.param("scale", lambda _: norm)
    return kernel * (scale.astype(jnp.float32) / norm)
