"""Speech from samples: the encoder of wav2vec 2.0 (arXiv 2006.11477), with a pre-norm transformer.

Differences from the published base model, unless `style` and `weight_norm` say else: blocks are pre-norm
(as its large model), layer norms have an epsilon of 1e-6 (1e-5), and the kernel of the position
convolution is a plain one, without weight normalisation. Group norm always leaves padding out.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout, Encoded, LayerNorm, gelu
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.ops.gradients import scale_gradient
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.normalise import over_features, over_time


class TimeConvolution(nn.Module):
    """Convolution over time, x [B, T, C] -> [B, T', features].

    Attributes:
      size, stride: of the kernel.
      groups: channels are split into so many independent convolutions. They are written as separate
        ones, because on CPUs a grouped convolution is ten times slower than its parts.
      padding: zeros before and after.
      weight_norm: the kernel's matrix of every step of time has a learned length, `kernel_scale`
        (arXiv 1602.07868).
    """

    features: int
    size: int
    stride: int = 1
    groups: int = 1
    padding: tuple[int, int] = (0, 0)
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    weight_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        if self.weight_norm:
            norm = jnp.sqrt(jnp.square(kernel.astype(jnp.float32)).sum((1, 2)))
            scale = self.param("kernel_scale", lambda key: norm).astype(jnp.float32)
            kernel = kernel * (scale / norm)[:, None, None]
        kernel = kernel.astype(x.dtype)
        parts = [
            jax.lax.conv_general_dilated(
                part,
                weights,
                (self.stride,),
                (self.padding,),
                dimension_numbers=("NWC", "WIO", "NWC"),
            )
            for part, weights in zip(
                jnp.split(x, self.groups, axis=-1),
                jnp.split(kernel, self.groups, axis=-1),
                strict=True,
            )
        ]
        y = parts[0] if self.groups == 1 else jnp.concatenate(parts, axis=-1)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(x.dtype)
        return y


class TimeNorm(nn.Module):
    """Every channel of every example to mean 0 and variance 1 over its real steps, in float32.

    Group normalisation (arXiv 1803.08494) with one channel per group; padding is left out of the
    statistics.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        return (over_time(x, mask, self.epsilon) * scale + bias).astype(x.dtype)


class WaveEncoder(nn.Module):
    """Samples to hidden states: convolutions, projection, position convolution, transformer.

    The call is `features`, then `contextualise`; objectives that need the latents between call these
    by name.

    Attributes:
      kernels, strides: of the front end's convolutions; 400 samples seen every 320 by default.
      channels: of the front end's convolutions.
      norm: 'group' normalises over time after the first convolution (base), 'layer' over channels
        after every one, which then have a bias (large).
      positions, groups: kernel size and groups of the position convolution.
      position_layers: how many position convolutions there are, one above the other; where more than
        one, each is followed by a norm without parameters (data2vec: 5 with a kernel of 19).
      gradient_scale: factor on the gradients of the front end (paper: 'scale down by a factor of 10').
      sample_rate: samples per second.
      relative_position: 'none', or 'gated' (WavLM; models/relative_position.py).
      stack: how the blocks are made (models/stack.py).
      style: what a block computes (models/style.py).
      weight_norm: the kernel of a single position convolution is normalised (wav2vec 2.0, HuBERT).
      convolution_bias: whether the front end's convolutions have one; None for norm='layer' alone.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    channels: int = 512
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    norm: str = "group"
    positions: int = 128
    groups: int = 16
    gradient_scale: float = 0.1
    expansion: float = 4.0
    dropout: float = 0.0
    sample_rate: int = 16_000
    relative_position: str = "none"
    stack: Stack = Stack()
    position_layers: int = 1
    style: Style = Style()
    weight_norm: bool = False
    convolution_bias: bool | None = None

    def setup(self):
        if self.position_layers < 1:
            raise ValueError(f"position_layers={self.position_layers}: must be 1 or more")
        if self.norm not in ("group", "layer"):
            raise ValueError(f"norm={self.norm!r}; valid: group, layer")
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels, but {len(self.strides)} strides")
        layered, epsilon = self.norm == "layer", self.style.epsilon
        bias = layered if self.convolution_bias is None else self.convolution_bias
        self.convolutions = [
            TimeConvolution(self.channels, size, stride, use_bias=bias)
            for size, stride in zip(self.kernels, self.strides, strict=True)
        ]
        self.norms = [LayerNorm(epsilon) for _ in self.kernels] if layered else [TimeNorm()]
        self.latent_norm = LayerNorm(epsilon)
        self.projection = Dense(self.width)
        self.mask_token = self.param("mask_token", nn.initializers.uniform(1.0), (self.width,))
        std = math.sqrt(4 * (1 - self.dropout) / (self.positions * self.width))
        place = functools.partial(
            TimeConvolution,
            self.width,
            self.positions,
            groups=self.groups,
            padding=(self.positions // 2, (self.positions - 1) // 2),
            use_bias=True,
        )
        if self.position_layers == 1:
            self.place = place(
                kernel_init=nn.initializers.normal(std), weight_norm=self.weight_norm
            )
        else:
            # what follows each is a norm, so the size of a kernel does not matter
            self.places = [place() for _ in range(self.position_layers)]
        self.drop = Dropout(self.dropout)
        self.transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            relative_position=self.relative_position,
            stack=self.stack,
            style=self.style,
        )
        if self.style.first_norm:
            self.first_norm = LayerNorm(epsilon)

    @nn.nowrap
    def token_count(self, samples):
        """How many tokens `samples` samples give, int or int array; windows never pass the end."""
        for size, stride in zip(self.kernels, self.strides, strict=True):
            samples = windows(samples, size, stride)
        return samples

    def __call__(
        self, audio: jax.Array, lengths: jax.Array, mask: jax.Array | None = None
    ) -> Encoded:
        """Encodes samples.

        Args:
          audio: [B, T], of zero mean and unit variance.
          lengths: int32 [B], the real samples; what is behind them is never looked at.
          mask: bool [B, N], tokens that are hidden: replaced by a learned vector.
        """
        return self.contextualise(*self.features(audio, lengths), mask)

    def features(self, audio: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(latents [B, N, channels], bool [B, N] true where a token's window holds real samples only).

        The latents are not normalised: their mean square is wav2vec 2.0's penalty.
        """
        if self.token_count(audio.shape[1]) < 1:
            raise ValueError(
                f"audio of {audio.shape[1]} samples is shorter than one token's window"
            )
        x = zero_beyond(audio, within(lengths, audio.shape[1]))[..., None]
        for i, (size, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            x, lengths = self.convolutions[i](x), windows(lengths, size, stride)
            if self.norm == "layer":
                x = self.norms[i](x)
            elif i == 0:
                x = self.norms[0](x, within(lengths, x.shape[1]))
            x = gelu(x)
        mask = within(lengths, x.shape[1])
        return scale_gradient(zero_beyond(x, mask), self.gradient_scale), mask

    def normalise(self, latents: jax.Array) -> jax.Array:
        """The latents as `contextualise` uses them, and as wav2vec 2.0 quantises them."""
        return self.latent_norm(latents)

    def contextualise(
        self, latents: jax.Array, mask: jax.Array, masked: jax.Array | None = None
    ) -> Encoded:
        """The transformer over latents, those where `masked` is true being hidden."""
        x = self.drop(self.projection(self.normalise(latents)))
        if masked is not None:
            x = jnp.where(masked[..., None], self.mask_token.astype(x.dtype), x)
        x = zero_beyond(x, mask)
        x = x + self._position(x, mask)
        if self.style.first_norm:
            x = self.first_norm(x)
        x, layers = self.transformer(self.drop(x), mask)
        rate = self.sample_rate / math.prod(self.strides)
        return Encoded(tokens=x, mask=mask, layers=layers, rate=rate)

    def _position(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """What tells the transformer the place of every token of x [B, N, D], and its neighbours."""
        if self.position_layers == 1:
            return gelu(self.place(x))
        for place in self.places:
            # zeros behind the end, or a second convolution would see what padding the first one left
            x = zero_beyond(gelu(over_features(place(x)).astype(x.dtype)), mask)
        return x


def windows(length, size: int, stride: int):
    """How many windows of `size` fit, one every `stride`; int or int array."""
    count = (length - size) // stride + 1
    return max(count, 0) if isinstance(count, int) else jnp.maximum(count, 0)
