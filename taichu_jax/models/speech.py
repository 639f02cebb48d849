"""Speech from log-mel frames: a small front end that shortens time, then a transformer.

The front end is two products with matrices on groups of `stride` neighbouring frames, which do not
overlap: a masked token has then left no trace in its neighbours. Tokens meet their neighbours after
masking, in a convolution over three tokens and in the transformer. Convolutions are written as
stacked shifts and one product, which is what CPUs and matrix units do fastest.

front_end='linear' is that of Mockingjay, TERA and Audio ALBERT (arXiv 1910.12638, s3prl) instead: one
product, positions added, a norm, and no convolution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout, Encoded, LayerNorm, gelu, sinusoid
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.ops.frames import stack_frames
from taichu_jax.ops.lengths import within, zero_beyond

FRAME_RATE = 100.0  # mel frames per second, a hop of 10 ms


def token_count(frames, stride: int):
    """How many tokens `frames` frames give, int or int array: ceil(frames / stride)."""
    return (frames + stride - 1) // stride


def alternating_sinusoid(length: int, width: int) -> jax.Array:
    """Fixed positions [length, width] as arXiv 1706.03762 writes them: sine, cosine, sine, ...

    Channels 2i and 2i + 1 have the frequency 10000^(-2i / width); `layers.sinusoid` has the sines
    first and reaches 1 / 10000 exactly.
    """
    channel = jnp.arange(width)
    angle = jnp.arange(length)[:, None] * 10_000.0 ** (-2.0 * (channel // 2) / width)
    return jnp.where(channel % 2, jnp.cos(angle), jnp.sin(angle))


class SpeechEncoder(nn.Module):
    """Log-mel frames to hidden states, `stride` frames to a token.

    The call is `features`, then `contextualise`; objectives that need the states between (wav2vec
    2.0, data2vec) call these by name.

    Attributes:
      stride: frames per token; 4 gives 25 tokens per second.
      bands: mel bands of the input.
      frames: the longest input, in frames.
      causal: a token sees only itself and what is before it, in the convolution too.
      shared_layers: all layers use the parameters of one block (Audio ALBERT, arXiv 2005.08575).
      relative_position: 'none', or 'gated' (WavLM; models/relative_position.py).
      stack: how the blocks are made (models/stack.py).
      front_end: 'local' or 'linear'; see the module's docstring.
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    stride: int = 4
    bands: int = 80
    frames: int = 400
    expansion: float = 4.0
    dropout: float = 0.0
    causal: bool = False
    shared_layers: bool = False
    relative_position: str = "none"
    stack: Stack = Stack()
    front_end: str = "local"

    def setup(self):
        if self.front_end not in ("local", "linear"):
            raise ValueError(f"front_end={self.front_end!r}; valid: linear, local")
        self.front = Dense(self.width, kernel_init=nn.initializers.lecun_normal())
        self.front_out = Dense(self.width, kernel_init=nn.initializers.lecun_normal())
        self.front_norm = LayerNorm()
        self.mask_token = self.param("mask_token", nn.initializers.normal(1.0), (self.width,))
        self.local = Dense(self.width, kernel_init=nn.initializers.lecun_normal())
        self.drop = Dropout(self.dropout)
        self.transformer = Transformer(
            self.depth,
            self.heads,
            self.expansion,
            self.dropout,
            causal=self.causal,
            shared_layers=self.shared_layers,
            relative_position=self.relative_position,
            stack=self.stack,
        )

    @nn.nowrap
    def token_count(self, frames):
        """How many tokens `frames` frames give, int or int array."""
        return token_count(frames, self.stride)

    def __call__(
        self, mel: jax.Array, lengths: jax.Array, mask: jax.Array | None = None
    ) -> Encoded:
        """Encodes log-mel frames.

        Args:
          mel: [B, F, bands], F <= frames.
          lengths: int32 [B], the real frames; what is behind them is never looked at.
          mask: bool [B, N], tokens that are hidden: replaced by a learned vector.
        """
        return self.contextualise(*self.features(mel, lengths), mask)

    def features(self, mel: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(latents [B, N, D], bool [B, N] true where a token holds at least one real frame)."""
        frames, bands = mel.shape[1:]
        if bands != self.bands:
            raise ValueError(f"mel frames of {bands} bands, but bands={self.bands}")
        if frames > self.frames:
            raise ValueError(f"speech of {frames} frames, but frames={self.frames}")
        stacked = stack_frames(mel, lengths, self.stride)
        latents = self.front(stacked)
        if self.front_end == "local":
            latents = self.front_out(gelu(latents))
        return latents, within(self.token_count(lengths), latents.shape[1])

    def normalise(self, latents: jax.Array) -> jax.Array:
        """The latents as `contextualise` uses them."""
        return self.front_norm(latents) if self.front_end == "local" else latents

    def contextualise(
        self, latents: jax.Array, mask: jax.Array, masked: jax.Array | None = None
    ) -> Encoded:
        """The transformer over latents, those where `masked` is true being hidden."""
        x = self.normalise(latents)
        if masked is not None:
            x = jnp.where(masked[..., None], self.mask_token.astype(x.dtype), x)
        x = zero_beyond(x, mask)
        if self.front_end == "linear":
            x = self.front_norm(x + alternating_sinusoid(x.shape[1], self.width).astype(x.dtype))
        else:
            x = self._with_neighbours(x)
        x, layers = self.transformer(self.drop(x), mask)
        return Encoded(tokens=x, mask=mask, layers=layers, rate=FRAME_RATE / self.stride)

    def _with_neighbours(self, x: jax.Array) -> jax.Array:
        """x [B, N, D], the convolution over three tokens and the positions, added up."""
        before, after = (2, 0) if self.causal else (1, 1)
        padded = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
        neighbours = [padded[:, i : i + x.shape[1]] for i in range(3)]
        x = x + gelu(self.local(jnp.concatenate(neighbours, axis=-1)))
        return x + sinusoid(x.shape[1], self.width).astype(x.dtype)
