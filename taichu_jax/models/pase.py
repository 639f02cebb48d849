"""Speech from samples: the encoder of PASE (arXiv 1904.03416) and PASE+ (arXiv 2001.09239).

Band-pass filters with learned cut-off frequencies (SincNet, arXiv 1808.00158), strided convolutions,
a quasi-recurrent layer (arXiv 1611.01576), and short cuts from every convolution to the output.

Differences from the authors' code:
* Batch normalisation mixes the rows of a batch and keeps running averages. The filters' outputs, whose
  levels lie far apart, are normalised each over its time (`TimeNorm`); later layers over time and
  channels together (`GlobalNorm`), which keeps what tells one voice from another. Both know padding.
* The output passes layer normalisation, theirs batch normalisation without scale.
* Zeros beyond both ends, where they reflect; what is left after the last whole token is not heard.
* Short cuts are averaged over time before their projection, not after: the same numbers for less work.
* Cut-offs are in kHz, so that a step of Adam is hertz; theirs, in Hz, hardly move. Hamming's window is
  the symmetric one.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Dense, Encoded, LayerNorm
from taichu_jax.models.wave import TimeConvolution, TimeNorm
from taichu_jax.ops.distortions import Distortions
from taichu_jax.ops.lengths import within, zero_beyond

LEAST_KHZ = 0.05  # lowest cut-off and smallest bandwidth, the authors'
FIRST_KHZ = 0.03  # where the first filter starts


class SincFilters(nn.Module):
    """Band-pass filters of samples, audio [B, T] -> [B, T / stride, channels].

    Filter i is the difference of two ideal low-pass filters under Hamming's window, 1 at its middle:

        low = 0.05 + |position|,  high = min(low + 0.05 + |scale|, rate / 2)

    Attributes:
      channels: filters; at the start equally spaced on the mel scale.
      size: taps, odd.
      stride: samples per output; T must be a multiple.
      sample_rate: samples per second.
    """

    channels: int
    size: int = 251
    stride: int = 1
    sample_rate: int = 16_000

    @nn.compact
    def __call__(self, audio: jax.Array) -> jax.Array:
        edges = mel_edges(self.channels, self.sample_rate)
        # Neither is a weight that should shrink: these names are not decayed.
        position = self.param("band_position", lambda _: jnp.asarray(edges[:-1], jnp.float32))
        scale = self.param("band_scale", lambda _: jnp.asarray(np.diff(edges), jnp.float32))
        filters = band_passes(position, scale, self.size, self.sample_rate).astype(audio.dtype)
        # Samples of one stride become channels: the same sums, as a convolution of stride 1.
        stride, taps = self.stride, -(-self.size // self.stride)
        before = self.size // 2
        padding = ((0, 0, 0), (before, (taps - 1) * stride - before, 0))
        x = jax.lax.pad(audio, jnp.zeros((), audio.dtype), padding)
        filters = jnp.pad(filters, ((0, taps * stride - self.size), (0, 0)))
        return jax.lax.conv_general_dilated(
            x.reshape(len(x), -1, stride),
            filters.reshape(taps, stride, self.channels),
            (1,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )


def band_passes(position: jax.Array, scale: jax.Array, size: int, sample_rate: int) -> jax.Array:
    """float32 [size, channels], the filters of `SincFilters` for positions and scales in kHz."""
    low = LEAST_KHZ + jnp.abs(position.astype(jnp.float32))
    high = low + LEAST_KHZ + jnp.abs(scale.astype(jnp.float32))
    high = jnp.minimum(high, sample_rate / 2000)
    time = (jnp.arange(size) - size // 2)[:, None] * (2000 / sample_rate)  # 1 / kHz, doubled
    passed = (high * jnp.sinc(high * time) - low * jnp.sinc(low * time)) / (high - low)
    return passed * np.hamming(size)[:, None].astype(np.float32)


def mel_edges(channels: int, sample_rate: int) -> np.ndarray:
    """kHz [channels + 1], equally spaced in mel = 2595 log10(1 + Hz / 700)."""
    low, high = np.log1p(np.array([FIRST_KHZ, sample_rate / 2000 - 2 * LEAST_KHZ]) / 0.7)
    return 0.7 * np.expm1(np.linspace(low, high, channels + 1))


class GlobalNorm(nn.Module):
    """x [B, N, C] to mean 0 and variance 1 over the real steps and channels of every example.

    The global layer normalisation of Conv-TasNet (arXiv 1809.07454), in float32.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)).astype(jnp.float32)
        x32, real = zero_beyond(x.astype(jnp.float32), mask), mask[..., None].astype(jnp.float32)
        count = jnp.maximum(real.sum(1, keepdims=True) * x.shape[-1], 1.0)
        mean = x32.sum((1, 2), keepdims=True) / count
        centred = (x32 - mean) * real
        variance = jnp.square(centred).sum((1, 2), keepdims=True) / count
        return (centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(x.dtype)


class PReLU(nn.Module):
    """max(x, 0) + a min(x, 0), one learned a per channel (arXiv 1502.01852); starts as ReLU."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        negative = self.param("negative_scale", nn.initializers.zeros, (x.shape[-1],))
        return jnp.maximum(x, 0) + negative.astype(x.dtype) * jnp.minimum(x, 0)


class QuasiRecurrence(nn.Module):
    """A quasi-recurrent layer (QRNN, arXiv 1611.01576) over x [B, T, C], left to right.

        z, f, o = tanh, sigmoid, sigmoid (W [x_{t-1}, x_t] + b)
        c_t = f_t c_{t-1} + (1 - f_t) z_t,    h_t = o_t c_t

    Gates look at two neighbouring inputs; the recurrence has no weights, so all steps are computed
    together by a parallel scan, in float32.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        gates = Dense(3 * self.width, name="input")(jnp.concatenate([before, x], axis=-1))
        gates = gates.astype(jnp.float32).reshape(*x.shape[:2], 3, self.width)
        z, f, o = jnp.tanh(gates[:, :, 0]), nn.sigmoid(gates[:, :, 1]), nn.sigmoid(gates[:, :, 2])

        def then(first, second):
            (f1, c1), (f2, c2) = first, second
            return f1 * f2, f2 * c1 + c2

        _, c = jax.lax.associative_scan(then, (f, (1 - f) * z), axis=1)
        return (o * c).astype(x.dtype)


class PaseEncoder(nn.Module):
    """Samples to hidden states, `prod(strides)` samples to a token (160, 10 ms, by default).

    `Encoded.layers` are the convolutions' outputs, averaged over the samples of a token, and the
    recurrent layer's. Nothing of it is random, so the objectives of a step share one call; what they
    hear is distorted by a call of its own, `distort`.

    Attributes:
      width: of the tokens (PASE 100, PASE+ 256).
      channels, kernels, strides: of the filters (first) and of the convolutions.
      recurrent: width of the quasi-recurrent layer (PASE+ 512); 0 leaves it out (PASE).
      short_cuts: every convolution but the last is added to the output, projected (PASE+).
      distortions: what `distort` does; None where it is not used.
      sample_rate: samples per second.
    """

    width: int = 256
    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512)
    kernels: tuple[int, ...] = (251, 20, 11, 11, 11, 11, 11, 11)
    strides: tuple[int, ...] = (1, 10, 2, 1, 2, 1, 2, 2)
    recurrent: int = 512
    short_cuts: bool = True
    distortions: Distortions | None = None
    sample_rate: int = 16_000

    def setup(self):
        sizes = (self.channels, self.kernels, self.strides)
        if len(set(map(len, sizes))) != 1:
            raise UserError(
                f"channels={self.channels}, kernels={self.kernels}, strides={self.strides}: must be "
                "equally many"
            )
        if self.kernels[0] % 2 == 0:
            raise UserError(f"kernels[0]={self.kernels[0]}: must be odd, a filter has a middle")
        self.filters = SincFilters(
            self.channels[0], self.kernels[0], self.strides[0], self.sample_rate
        )
        layers = list(zip(*sizes, strict=True))[1:]
        # Output t looks at inputs around t * stride.
        self.convolutions = [
            TimeConvolution(c, k, s, padding=((k - 1) // 2, k - s - (k - 1) // 2))
            for c, k, s in layers
        ]
        self.norms = [TimeNorm(), *(GlobalNorm() for _ in layers)]
        self.activations = [PReLU() for _ in self.channels]
        self.recurrence = QuasiRecurrence(self.recurrent) if self.recurrent else None
        self.projection = Dense(self.width)
        cuts = len(layers) if self.short_cuts else 0
        self.cuts = [Dense(self.width, use_bias=False) for _ in range(cuts)]
        self.norm = LayerNorm()

    @nn.nowrap
    def token_count(self, samples):
        """How many tokens `samples` samples give, int or int array."""
        return samples // math.prod(self.strides)

    def distort(self, audio: jax.Array, lengths: jax.Array, step: jax.Array) -> jax.Array:
        """audio [B, T] as it is to be heard in training step `step`.

        The draw is a function of the step and not of the objective: calls with one batch and one step
        are one call (training/nets.py), and so is the encoding of what they return. The micro-batches
        of one step draw the same for their rows.
        """
        if self.distortions is None:
            raise UserError("distorted=True needs an encoder with `distortions`, which is None")
        return self.distortions(audio, lengths, step)

    def __call__(self, audio: jax.Array, lengths: jax.Array) -> Encoded:
        """Encodes samples.

        Args:
          audio: [B, T], of zero mean and unit variance.
          lengths: int32 [B], the real samples; what is behind them is never looked at.
        """
        hop = math.prod(self.strides)
        tokens, real = self.token_count(audio.shape[1]), self.token_count(lengths)
        if tokens < 1:
            raise UserError(f"audio of {audio.shape[1]} samples is shorter than a token of {hop}")
        x = audio[:, : tokens * hop]
        x = zero_beyond(x, within(real * hop, x.shape[1]))
        averages = []
        for i, layer in enumerate([self.filters, *self.convolutions]):
            x = layer(x)
            per_token = x.shape[1] // tokens
            mask = within(real * per_token, x.shape[1])
            x = zero_beyond(self.activations[i](self.norms[i](x, mask)), mask)
            averages.append(x.reshape(len(x), tokens, per_token, -1).mean(2))
        layers = tuple(averages)
        if self.recurrence is not None:
            x = self.recurrence(x)
            layers += (x,)
        y = self.projection(x)
        for cut, average in zip(self.cuts, averages, strict=False):
            y = y + cut(average)
        mask = within(real, tokens)
        return Encoded(
            tokens=zero_beyond(self.norm(y), mask),
            mask=mask,
            layers=tuple(zero_beyond(x, mask) for x in layers),
            rate=self.sample_rate / hop,
        )
