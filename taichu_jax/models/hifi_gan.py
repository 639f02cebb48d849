"""The generator and the discriminators of HiFi-GAN (arXiv 2010.05646).

Differences from the authors' code:
* A frame is centred on its sample, as in `data/audio.py`: F frames give the (F - 1) * 160 samples from
  the first frame's middle to the last one's. Theirs are centred half a hop later.
* 100 frames a second and 16 kHz: the rates multiply to 160, theirs to 256. A kernel is a multiple of its
  rate, so that a transposed convolution is one product of matrices.
* LeCun's initial values in place of a deviation of 0.01, but for the last convolution.
* All kernels have weight normalisation, one length for each output channel; the first of their
  discriminators of scales has spectral normalisation, whose power iteration is state.
* Periods are filled up with zeros, which is what follows a recording, where they reflect.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.convolution import Convolution, UpSampling
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.speech_frames import HOP
from taichu_jax.ops.taps import taps

SLOPE = 0.1  # of the leaky ReLUs, the authors'
LAST_SLOPE = 0.01  # of the one before the samples
LAST_DEVIATION = 0.01  # of the kernel that makes them


class HifiGanGenerator(nn.Module):
    """Log-mel frames [B, F, M] to samples [B, (F - 1) * HOP] in [-1, 1].

    Attributes:
      channels: of the first convolution, halved by each up-sampling (V1 512, V2 128, V3 256).
      rates, sizes: of the transposed convolutions; the rates multiply to HOP.
      block_sizes, dilations: after each of them the results of so many residual blocks are averaged;
        their kernels, and the dilations in each.
      paired: a dilated convolution is followed by one without dilation (V1, V2), or not (V3).
      mel_mean, mel_deviation: what is subtracted from the frames, and what they are divided by.
    """

    channels: int = 512
    rates: tuple[int, ...] = (5, 4, 4, 2)
    sizes: tuple[int, ...] = (15, 8, 8, 4)
    block_sizes: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    paired: bool = True
    mel_mean: float = 0.0
    mel_deviation: float = 1.0

    @nn.compact
    def __call__(self, mel: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Samples from the middle of the first frame to the middle of the last.

        Args:
          lengths: int32 [B], the real frames; samples do not depend on what is behind them, and are 0
            behind their last one. None: all are real.
        """
        self._check()
        frames, per_frame = mel.shape[1], 1

        def real(x):
            return x if lengths is None else zero_beyond(x, within(lengths * per_frame, x.shape[1]))

        x = real((mel - self.mel_mean) / self.mel_deviation)
        x = Convolution(self.channels, 7, name="first")(x)
        for i, (rate, size) in enumerate(zip(self.rates, self.sizes, strict=True)):
            channels = self.channels // 2 ** (i + 1)
            x = real(leaky(x))
            x = UpSampling(channels, rate, size, name=f"upsampling_{i}")(x)
            per_frame *= rate
            blocks = []
            for j, (block, dilations) in enumerate(
                zip(self.block_sizes, self.dilations, strict=True)
            ):
                blocks.append(self._block(real, x, block, dilations, f"block_{i}_{j}"))
            x = sum(blocks[1:], blocks[0]) / len(blocks)
        x = real(leaky(x, LAST_SLOPE))
        start = nn.initializers.normal(LAST_DEVIATION)
        x = jnp.tanh(Convolution(1, 7, kernel_init=start, name="last")(x)[..., 0])
        x = x[:, HOP // 2 : HOP // 2 + (frames - 1) * HOP]
        return x if lengths is None else zero_beyond(x, within((lengths - 1) * HOP, x.shape[1]))

    def _block(self, real, x, size, dilations, name):
        for k, dilation in enumerate(dilations):
            y = Convolution(x.shape[-1], size, dilation=dilation, name=f"{name}_{k}")(
                real(leaky(x))
            )
            if self.paired:
                y = Convolution(x.shape[-1], size, name=f"{name}_{k}_second")(real(leaky(y)))
            x = x + y
        return x

    @nn.nowrap
    def receptive_field(self) -> tuple[int, int]:
        """Frames before and after frame t that samples t * HOP .. t * HOP + HOP - 1 depend on."""
        self._check()
        low, high = HOP // 2 - 3, HOP // 2 + HOP - 1 + 3  # the convolution of 7 that makes samples
        for rate, size in zip(self.rates[::-1], self.sizes[::-1], strict=True):
            before, after = zip(
                *map(self._block_reach, self.block_sizes, self.dilations), strict=True
            )
            low, high = low - max(before), high + max(after)
            # An up-sampling's output n is made of the inputs t with 0 <= n + cut - t rate < size.
            cut = (size - rate) // 2
            low, high = -((size - 1 - cut - low) // rate), (high + cut) // rate
        return 3 - low, high + 3

    @nn.nowrap
    def _block_reach(self, size: int, dilations: tuple[int, ...]) -> tuple[int, int]:
        """Steps before and after its own that a residual block sees."""
        spans = [(size - 1) * d for d in dilations] + [size - 1] * len(dilations) * self.paired
        before = sum(span // 2 for span in spans)
        return before, sum(spans) - before

    @nn.nowrap
    def _check(self) -> None:
        if math.prod(self.rates) != HOP:
            raise UserError(f"rates={self.rates}: must multiply to {HOP}, the samples of a frame")
        for one, other in (("rates", "sizes"), ("block_sizes", "dilations")):
            first, second = getattr(self, one), getattr(self, other)
            if len(first) != len(second):
                raise UserError(f"{one}={first}, {other}={second}: must be equally many")
        if self.channels % 2 ** len(self.rates):
            raise UserError(
                f"channels={self.channels}: must be a multiple of {2 ** len(self.rates)}, which is "
                f"2 for each of rates={self.rates}"
            )


class Judged(NamedTuple):
    """What one discriminator says.

    Attributes:
      score: [B, N], 1 for real and 0 for made.
      features: of every layer, [B, ...]; the last is the score.
    """

    score: jax.Array
    features: tuple[jax.Array, ...]


class HifiGanDiscriminators(nn.Module):
    """Samples [B, T] to one `Judged` for each period and each scale.

    A discriminator of period p sees samples p apart, all p shifts alike; one of scale s sees the samples
    averaged s times over four neighbours, every second time.

    Attributes:
      periods: in samples; none for no such discriminators.
      period_channels: of their layers, kernels of 5 with stride 3, the last without.
      scales: how many discriminators of scales.
      scale_channels, scale_sizes, scale_strides, scale_groups: of their layers.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    scales: int = 3
    scale_channels: tuple[int, ...] = (128, 128, 256, 512, 1024, 1024, 1024)
    scale_sizes: tuple[int, ...] = (15, 41, 41, 41, 41, 41, 5)
    scale_strides: tuple[int, ...] = (1, 2, 2, 4, 4, 1, 1)
    scale_groups: tuple[int, ...] = (1, 4, 16, 16, 16, 16, 1)

    @nn.compact
    def __call__(self, audio: jax.Array) -> tuple[Judged, ...]:
        if not self.periods and not self.scales:
            raise UserError("periods=() and scales=0: at least one discriminator is needed")
        layers = (self.scale_channels, self.scale_sizes, self.scale_strides, self.scale_groups)
        if len(set(map(len, layers))) != 1:
            raise UserError(
                f"scale_channels={layers[0]}, scale_sizes={layers[1]}, scale_strides={layers[2]}, "
                f"scale_groups={layers[3]}: must be equally many"
            )
        judged = [self._period(audio, p) for p in self.periods]
        x = audio[..., None]
        for i in range(self.scales):
            x = taps(x, 4, stride=2, before=2).mean(-1, keepdims=True) if i else x
            judged.append(self._layers(x, list(zip(*layers, strict=True)), f"scale_{i}"))
        return tuple(judged)

    def _period(self, audio: jax.Array, period: int) -> Judged:
        batch, samples = audio.shape
        rows = -(-samples // period)
        x = jnp.pad(audio, ((0, 0), (0, rows * period - samples))).reshape(batch, rows, period)
        x = x.transpose(0, 2, 1).reshape(batch * period, rows, 1)
        last = len(self.period_channels) - 1
        layers = [(c, 5, 1 if i == last else 3, 1) for i, c in enumerate(self.period_channels)]
        judged = self._layers(x, layers, f"period_{period}")
        return jax.tree.map(lambda y: y.reshape(batch, period, *y.shape[1:]), judged)._replace(
            score=judged.score.reshape(batch, -1)
        )

    def _layers(self, x: jax.Array, layers, name: str) -> Judged:
        features = []
        for i, (channels, size, stride, groups) in enumerate(layers):
            layer = Convolution(channels, size, stride, groups=groups, name=f"{name}_{i}")
            x = leaky(layer(x))
            features.append(x)
        score = Convolution(1, 3, name=f"{name}_score")(x)
        return Judged(score[..., 0], (*features, score))


def leaky(x: jax.Array, slope: float = SLOPE) -> jax.Array:
    """max(x, slope x)."""
    return jnp.maximum(x, slope * x)
