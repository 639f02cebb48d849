"""Speech as a few numbers a second: log-mel frames to codes and back.

The shape of SoundStream (arXiv 2107.03312) and EnCodec (arXiv 2210.13438): residual units of a dilated
and a pointwise convolution with ELU and weight normalisation, a convolution of twice the stride, and a
mirrored decoder. Ours: it reads and writes log-mel frames in place of samples, so there is one strided
convolution; latents have mean 0 and variance 1 over their channels, without which codebook and latents
could shrink together.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.convolution import Convolution, UpSampling
from taichu_jax.models.layers import Dense, Encoded
from taichu_jax.models.residual_quantiser import ResidualCodes, ResidualQuantiser
from taichu_jax.models.speech import FRAME_RATE, token_count
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.normalise import over_features


class ResidualUnit(nn.Module):
    """x + a dilated convolution of 3 and a pointwise one; `causal` ones see no later step."""

    dilation: int = 1
    causal: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        width, before = x.shape[-1], 2 * self.dilation if self.causal else None
        y = zero_beyond(jax.nn.elu(x), mask)
        y = Convolution(width, 3, dilation=self.dilation, before=before, name="dilated")(y)
        y = Convolution(width, 1, name="pointwise")(jax.nn.elu(y))
        return x + y


class MelTokeniser(nn.Module):
    """Log-mel frames to `quantiser.stages` codes every `stride` frames, and codes to log-mel frames.

    `codes` and `decode` need nothing but the parameters. As an encoder its tokens are the latents, its
    layers the latents and what is left of them after quantisation.

    Attributes:
      width: of the units between tokens; half of it at 100 frames a second.
      depth: residual units on either side, of dilation 1, 2, 4, ...
      stride: frames to a token; 4 gives 25 tokens a second, 2 gives 50.
      bands: mel bands.
      causal: neither codes nor frames know what comes later than their token.
      mel_mean, mel_deviation: of the frames over the data, which the networks see removed.
      quantiser: its `dim` is the latents' width.
    """

    width: int = 128
    depth: int = 3
    stride: int = 4
    bands: int = 80
    causal: bool = True
    mel_mean: float = 0.0
    mel_deviation: float = 1.0
    quantiser: ResidualQuantiser = ResidualQuantiser()

    def setup(self):
        half, s, causal = self.width // 2, self.stride, self.causal
        if s < 2 or (s % 2 and not causal):
            raise UserError(f"stride={s}: must be 2 or more, and even where causal=False")
        wide = 6 if causal else None  # inputs before its own that a convolution of 7 sees
        self.first = Convolution(half, 7, before=wide)
        self.fast_unit = ResidualUnit(causal=causal)
        self.shorten = Convolution(self.width, 2 * s, s, before=s if causal else s // 2)
        self.units = [ResidualUnit(2**i, causal) for i in range(self.depth)]
        self.project = Dense(self.quantiser.dim)
        self.open = Convolution(self.width, 7, before=wide)
        self.decoder_units = [ResidualUnit(2**i, causal) for i in range(self.depth)]
        self.lengthen = UpSampling(half, s, 2 * s, cut=0 if causal else s // 2)
        self.decoder_fast_unit = ResidualUnit(causal=causal)
        self.last = Convolution(self.bands, 7, before=wide)

    @nn.nowrap
    def token_count(self, frames):
        """How many tokens `frames` frames give, int or int array: ceil(frames / stride)."""
        return token_count(frames, self.stride)

    @nn.nowrap
    def looks_back(self) -> tuple[int, int]:
        """How many tokens before its own a causal token's codes know, and its decoded frames know."""
        if not self.causal:
            raise UserError("causal=False: codes and frames know what comes later; train with True")
        # Frames: 6 of the convolution of 7 and 2 of the unit, on the side of 100 frames a second.
        units, fast = 2 * (2**self.depth - 1), -(-8 // self.stride)
        return fast + 1 + units, 6 + units + 1 + fast

    def __call__(self, mel: jax.Array, lengths: jax.Array) -> Encoded:
        """The latents as tokens, for what reads hidden states."""
        latents, mask = self.encode(mel, lengths)
        quantised = zero_beyond(self.quantiser(latents).vectors, mask)
        layers = (latents, quantised)
        return Encoded(tokens=latents, mask=mask, layers=layers, rate=FRAME_RATE / self.stride)

    def encode(self, mel: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(latents [B, N, dim] of mean 0 and variance 1, bool [B, N] true where a token is real).

        Args:
          mel: [B, F, bands].
          lengths: int32 [B], the real frames; what is behind them is never looked at.
        """
        if mel.shape[-1] != self.bands:
            raise UserError(f"bands={self.bands}: the frames have {mel.shape[-1]} bands")
        here = within(lengths, mel.shape[1])
        x = zero_beyond((mel - self.mel_mean) / self.mel_deviation, here).astype(mel.dtype)
        x = self.fast_unit(self.first(x), here)
        x = self.shorten(zero_beyond(jax.nn.elu(x), here))
        mask = within(self.token_count(lengths), x.shape[1])
        for unit in self.units:
            x = unit(x, mask)
        latents = over_features(self.project(jax.nn.elu(x))).astype(mel.dtype)
        return zero_beyond(latents, mask), mask

    def quantise(self, latents: jax.Array, stages: jax.Array | None = None) -> ResidualCodes:
        """See `ResidualQuantiser`."""
        return self.quantiser(latents, stages)

    def entries(self) -> jax.Array:
        """float32 [stages, codes, dim]: the codebooks."""
        return self.quantiser.entries()

    def synthesise(self, vectors: jax.Array, lengths: jax.Array) -> jax.Array:
        """Log-mel frames [B, N * stride, bands] of quantised latents [B, N, dim].

        Args:
          lengths: int32 [B], the real frames; those behind them have no meaning.
        """
        mask = within(self.token_count(lengths), vectors.shape[1])
        x = self.open(zero_beyond(vectors, mask))
        for unit in self.decoder_units:
            x = unit(x, mask)
        x = self.lengthen(zero_beyond(jax.nn.elu(x), mask))
        here = within(lengths, x.shape[1])
        x = self.decoder_fast_unit(x, here)
        x = self.last(zero_beyond(jax.nn.elu(x), here))
        return x * self.mel_deviation + self.mel_mean

    def codes(self, mel: jax.Array, lengths: jax.Array) -> jax.Array:
        """int32 [B, N, stages] of log-mel frames; those of tokens behind the end have no meaning."""
        return self.quantiser(self.encode(mel, lengths)[0]).indices

    def decode(self, codes: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Log-mel frames [B, N * stride, bands] of codes [B, N, S], of the first S stages.

        Args:
          lengths: int32 [B], the real frames; None: all are.
        """
        if lengths is None:
            lengths = jnp.full(len(codes), codes.shape[1] * self.stride)
        return self.synthesise(self.quantiser.look_up(codes), lengths)
