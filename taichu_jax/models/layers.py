"""Small layers that every model uses."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taichu_jax.ops.constrain import axis_size


@struct.dataclass
class Encoded:
    """What every encoder returns.

    Attributes:
      tokens: [B, N, D], the last layer's states, normalised.
      mask: bool [B, N], true where there is a real token, frame or patch.
      layers: hidden states [B, N, D] of the input (first) and of every block, for probes.
      rate: tokens per second (audio), or per pixel row (images), or 1 (text); static.
    """

    tokens: jax.Array
    mask: jax.Array
    layers: tuple[jax.Array, ...] = ()
    rate: float = struct.field(pytree_node=False, default=1.0)


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x W on the last axis of x and the first of W, in the type of x.

    Leading axes are flattened first: on CPUs the weight gradient of a three-dimensional input is
    computed from a transposed copy, at half the speed. Not where positions are split over devices: an
    array that is split along both axes cannot be flattened in place.
    """
    flat = x if axis_size("sequence") > 1 else x.reshape(-1, x.shape[-1])
    return jnp.tensordot(flat, kernel.astype(x.dtype), 1).reshape(*x.shape[:-1], *kernel.shape[1:])


class Affine(nn.Module):
    """What x W + b on the last axis is made of; `Dense` and `Weights` say what is done with it."""

    features: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.nowrap
    def weights(self, inputs: int) -> tuple[jax.Array, jax.Array | None]:
        """W [inputs, features] and b [features], or None for it."""
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
        if not self.use_bias:
            return kernel, None
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Dense(Affine):
    """x W + b on the last axis."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = self.weights(x.shape[-1])
        return _with_bias(product(x, kernel), bias)


class Weights(Affine):
    """W and b themselves, under the same names as those of `Dense`, for `side_by_side`."""

    @nn.compact
    def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array | None]:
        return self.weights(inputs)


def side_by_side(x: jax.Array, *layers: Weights) -> tuple[jax.Array, ...]:
    """x W + b of several layers of the same number of features: queries, keys and values.

    Where features are split over devices ('tensor'), as one product with all W: the gradient of x, to
    which every device contributes a part, is then added over devices once instead of once per layer.
    Elsewhere one after the other, since laying W side by side copies them.
    """
    weights = [layer(x.shape[-1]) for layer in layers]
    if axis_size("tensor") == 1 or len(weights) == 1:
        return tuple(_with_bias(product(x, kernel), bias) for kernel, bias in weights)
    # Stacked on an axis of their own, so that each device joins the parts it has.
    y = product(x, jnp.stack([kernel.astype(x.dtype) for kernel, _ in weights], 1))
    return tuple(_with_bias(y[..., j, :], bias) for j, (_, bias) in enumerate(weights))


def _with_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    return y if bias is None else y + bias.astype(y.dtype)


class Linear(nn.Module):
    """x W + b as a network of its own, which a config can name."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Dense(self.features, name="linear")(x)


class LayerNorm(nn.Module):
    """Layer normalisation (arXiv 1607.06450) over the last axis, computed in float32."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        mean = x32.mean(-1, keepdims=True)
        variance = jnp.square(x32 - mean).mean(-1, keepdims=True)
        normal = (x32 - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (normal * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167) over the last axis with fixed statistics, in float32.

        y = (x - mean) / sqrt(variance + epsilon) * scale + bias

    What PyTorch computes in eval mode. Training here does NOT update mean and variance: they come with
    converted weights (from 0 and 1 this is scale and bias alone), get no gradient, and the optimiser
    freezes them (`training.optim.STATISTICS`). So a state depends on no other frame, on no padding and
    on no other example, in training as in use.

    Attributes:
      epsilon: PyTorch's default.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape).astype(jnp.float32)
        mean = self.param("mean", nn.initializers.zeros, shape)
        variance = self.param("variance", nn.initializers.ones, shape)
        mean, variance = jax.lax.stop_gradient((mean, variance))
        centred = x.astype(jnp.float32) - mean.astype(jnp.float32)
        normal = centred * jax.lax.rsqrt(variance.astype(jnp.float32) + self.epsilon)
        return (normal * scale + bias).astype(x.dtype)


class Dropout(nn.Module):
    """Inverted dropout; active exactly when the caller supplies a 'dropout' rng."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU (arXiv 1606.08415), 0.5 x (1 + erf(x / sqrt 2))."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 2.0**-0.5))


def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU with the tanh approximation of the same paper (GPT-2)."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """x sigmoid(1.702 x), the paper's other approximation (CLIP)."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def sinusoid(length: int, width: int, start: jax.Array | int = 0) -> jax.Array:
    """Fixed positions [length, width] of arXiv 1706.03762, sines first, then cosines.

    start: the first position.
    """
    rate = jnp.exp(-jnp.log(10_000.0) * jnp.arange(width // 2) / max(1, width // 2 - 1))
    angle = (start + jnp.arange(length))[:, None] * rate[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def sinusoid_2d(rows: int, columns: int, width: int) -> jax.Array:
    """Fixed positions [rows * columns, width] of a grid: half the width for each axis (MAE, MoCo v3)."""
    y = jnp.repeat(sinusoid(rows, width // 2), columns, axis=0)
    x = jnp.tile(sinusoid(columns, width // 2), (rows, 1))
    return jnp.concatenate([y, x], axis=-1)


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x [B, N, D] over the positions where mask [B, N] is true; 0 where there is none."""
    weight = mask[..., None].astype(x.dtype)
    return (x * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
