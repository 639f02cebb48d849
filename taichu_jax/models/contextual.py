"""Speech from samples, read from left to right: the encoders of CPC, wav2vec and vq-wav2vec.

Convolutions with strides give a latent every 160 samples that has seen 465; a recurrent network or
causal convolutions give each latent a context of those before it.

The authors of wav2vec normalise over all channels and all steps of an utterance at once (group
normalisation with one group), so every state knows a little of the whole utterance, of what it is
asked to predict and, in a batch, of padding. Here norm='layer' normalises the channels of each step
alone, as CPC's authors do (arXiv 2002.02848); relative loudness from step to step is lost.
norm='group' is wav2vec's, over the real steps. Further differences from their code: convolutions
start with zeros in place of copies of the first step, and no dropout.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.heads import activation_named
from taichu_jax.models.layers import Dense, Encoded, LayerNorm
from taichu_jax.models.quantiser import Quantised
from taichu_jax.models.recurrent import Recurrence
from taichu_jax.models.wave import TimeConvolution, windows
from taichu_jax.ops.lengths import within, zero_beyond

EPSILON = 1e-5  # of the authors' normalisations
STARTS = {
    "in": nn.initializers.lecun_normal(),
    "out": nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform"),
}


class UtteranceNorm(nn.Module):
    """Every example to mean 0 and variance 1 over its real steps and all channels, in float32.

    Group normalisation (arXiv 1803.08494) with one group.
    """

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        real = mask[..., None]
        count = jnp.maximum(mask.sum(1) * x.shape[-1], 1)[:, None, None]
        x32 = jnp.where(real, x.astype(jnp.float32), 0.0)
        centred = x32 - x32.sum((1, 2), keepdims=True) / count
        variance = jnp.where(real, jnp.square(centred), 0.0).sum((1, 2), keepdims=True) / count
        return (centred * jax.lax.rsqrt(variance + EPSILON) * scale + bias).astype(x.dtype)


class WaveContextEncoder(nn.Module):
    """Samples to latents, latents to contexts that have seen no later latent.

    The call is `features`, with a quantiser `quantise`, then `contextualise`. `Encoded.tokens` are the
    contexts of the last layer, `Encoded.layers` the latents (as they are and quantised) and the contexts
    of every layer.

    Attributes:
      width: of the contexts.
      channels, kernels, strides: of the convolutions that give the latents.
      norm: 'layer' or 'group'; see the module's docstring.
      activation: 'relu' (CPC, wav2vec) or 'gelu' (vq-wav2vec's code).
      compress: latents z become log(1 + |z|) (wav2vec's code).
      context: 'gru', 'lstm' or 'convolution'.
      depth: recurrent layers.
      context_kernels: of the causal convolutions; nine of 3 in wav2vec, 2 to 13 in its large model.
      skip: each convolution's input is added to its output, times sqrt(1/2) (large model).
      quantiser: stands between latents and contexts (vq-wav2vec); its `dim` is free.
      sample_rate: samples per second.
    """

    width: int = 256
    channels: int = 256
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4)
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    norm: str = "layer"
    activation: str = "relu"
    compress: bool = False
    context: str = "gru"
    depth: int = 1
    context_kernels: tuple[int, ...] = (3,) * 9
    skip: bool = False
    quantiser: nn.Module | None = None
    sample_rate: int = 16_000

    def setup(self):
        if self.norm not in ("layer", "group"):
            raise ValueError(f"norm={self.norm!r}; valid: group, layer")
        self.activate = activation_named(self.activation)
        if self.context not in ("gru", "lstm", "convolution"):
            raise ValueError(f"context={self.context!r}; valid: convolution, gru, lstm")
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels, but {len(self.strides)} strides")
        self.convolutions = [
            TimeConvolution(self.channels, size, stride)
            for size, stride in zip(self.kernels, self.strides, strict=True)
        ]
        self.norms = [self._norm() for _ in self.kernels]
        if self.context == "convolution":
            self.contexts = [
                TimeConvolution(self.width, size, padding=(size - 1, 0), use_bias=True)
                for size in self.context_kernels
            ]
            self.context_norms = [self._norm() for _ in self.context_kernels]
            self.entry = Dense(self.width, use_bias=False)
        else:
            self.contexts = [Recurrence(self.width, self.context) for _ in range(self.depth)]

    @nn.nowrap
    def _norm(self):
        return LayerNorm(EPSILON) if self.norm == "layer" else UtteranceNorm()

    @nn.nowrap
    def _normal(self, norm, x, mask):
        return norm(x) if self.norm == "layer" else norm(x, mask)

    @nn.nowrap
    def token_count(self, samples):
        """How many latents `samples` samples give, int or int array; windows never pass the end."""
        for size, stride in zip(self.kernels, self.strides, strict=True):
            samples = windows(samples, size, stride)
        return samples

    def __call__(self, audio: jax.Array, lengths: jax.Array) -> Encoded:
        """Encodes samples; a quantiser chooses without noise.

        Args:
          audio: [B, T], of zero mean and unit variance.
          lengths: int32 [B], the real samples; what is behind them is never looked at.
        """
        latents, mask = self.features(audio, lengths)
        if self.quantiser is None:
            return self.contextualise(latents, mask)
        encoded = self.contextualise(self.quantise(latents).vectors, mask)
        return encoded.replace(layers=(latents, *encoded.layers))  # type: ignore[attr-defined]

    def features(self, audio: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(latents [B, N, channels], bool [B, N] true where a latent's window holds real samples)."""
        if self.token_count(audio.shape[1]) < 1:
            raise ValueError(
                f"audio of {audio.shape[1]} samples is shorter than one token's window"
            )
        x = zero_beyond(audio, within(lengths, audio.shape[1]))[..., None]
        for i, (size, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            x, lengths = self.convolutions[i](x), windows(lengths, size, stride)
            x = self.activate(self._normal(self.norms[i], x, within(lengths, x.shape[1])))
        if self.compress:
            x = jnp.log1p(jnp.abs(x))
        mask = within(lengths, x.shape[1])
        return zero_beyond(x, mask), mask

    def quantise(
        self,
        latents: jax.Array,
        rng: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
    ) -> Quantised:
        """What the quantiser makes of latents [B, N, channels]."""
        if self.quantiser is None:
            raise ValueError("quantiser=None: this encoder has no quantiser")
        return self.quantiser(latents, rng, temperature)

    def contextualise(self, latents: jax.Array, mask: jax.Array) -> Encoded:
        """The contexts of latents [B, N, D], real where mask [B, N] is true."""
        x = zero_beyond(latents, mask)
        layers = [x]
        for i, layer in enumerate(self.contexts):
            y = layer(x)
            if self.context == "convolution":
                y = self.activate(self._normal(self.context_norms[i], y, mask))
                if self.skip:
                    same = x if x.shape[-1] == self.width else self.entry(x)
                    y = (y + same) * math.sqrt(0.5)
            x = zero_beyond(y, mask)
            layers.append(x)
        rate = self.sample_rate / math.prod(self.strides)
        return Encoded(tokens=x, mask=mask, layers=tuple(layers), rate=rate)


class StepHead(nn.Module):
    """Predicts the latents of several steps from one state: W_k c, or W_k c + b_k.

    Attributes:
      steps: how many.
      features: width of a latent.
      bias: b_k; wav2vec has it, CPC has not.
      fan: whether kernels start smaller the more go 'in' (normal, 1 / sqrt(D)) or the more come 'out'
        (uniform up to 1 / sqrt(steps * features): wav2vec's code, a transposed convolution of PyTorch).
    """

    steps: int = 12
    features: int = 256
    bias: bool = True
    fan: str = "in"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., steps * features] of states [..., D]."""
        if self.fan not in STARTS:
            raise ValueError(f"fan={self.fan!r}; valid: in, out")
        start, size = STARTS[self.fan], self.steps * self.features
        return Dense(size, use_bias=self.bias, kernel_init=start, name="linear")(x)
