"""Speech from log-mel frames: a small front end that shortens time, then a transformer.

The front end is two products with matrices on groups of `stride` neighbouring frames, which do not
overlap: a masked token has then left no trace in its neighbours. Tokens meet their neighbours after
masking, in a convolution over three tokens and in the transformer. Convolutions are written as
stacked shifts and one product, which is what CPUs and matrix units do fastest.

front_end='linear' is that of Mockingjay, TERA and Audio ALBERT (arXiv 1910.12638, s3prl) instead: one
product, positions added, a norm, and no convolution.

front_end='convolution' is that of Whisper (arXiv 2212.04356): two convolutions over three, the first over
frames, the second `stride` apart, each with a GELU; then positions, added. A masked token has left
traces in its neighbours there. Whisper hears the silence behind an utterance: give its length as real.

With chunk_size the encoder hears in chunks of so many tokens (chunk-wise attention, arXiv 2010.10759 and
2006.14941 in spirit): a token sees its whole chunk and left_context tokens before the chunk, in every
block, and the convolution looks back only. `stream` then gives chunk by chunk what the call gives at
once, with a state of a fixed size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taichu_jax.errors import UserError
from taichu_jax.models.cache import Cache, Recent, empty
from taichu_jax.models.layers import Dense, Dropout, Encoded, LayerNorm, gelu, sinusoid
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.models.wave import TimeConvolution
from taichu_jax.ops.frames import stack_frames
from taichu_jax.ops.lengths import within, zero_beyond

FRAME_RATE = 100.0  # mel frames per second, a hop of 10 ms


def token_count(frames, stride: int):
    """How many tokens `frames` frames give, int or int array: ceil(frames / stride)."""
    return (frames + stride - 1) // stride


@struct.dataclass
class Heard:
    """What an encoder knows of the chunks so far.

    Attributes:
      tokens: int32 scalar, how many there were.
      before: [B, 2, D], the last two, for the convolution.
      cache: keys and values of the last `left_context` ones, of every block.
    """

    tokens: jax.Array
    before: jax.Array
    cache: Cache


def chunk_mask(tokens: int, chunk: int, left: int) -> jax.Array:
    """bool [tokens, tokens]: what a token sees of others, by chunks and `left` tokens before its own."""
    position = jnp.arange(tokens)
    first = position - position % chunk  # of the token's chunk
    after, before = position < first[:, None] + chunk, position >= first[:, None] - left
    return after & before


def alternating_sinusoid(length: int, width: int, start: jax.Array | int = 0) -> jax.Array:
    """Fixed positions [length, width] as arXiv 1706.03762 writes them: sine, cosine, sine, ...

    Channels 2i and 2i + 1 have the frequency 10000^(-2i / width); `layers.sinusoid` has the sines
    first and reaches 1 / 10000 exactly. start: the first position.
    """
    channel = jnp.arange(width)
    angle = (start + jnp.arange(length))[:, None] * 10_000.0 ** (-2.0 * (channel // 2) / width)
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
      front_end: 'local', 'linear' or 'convolution'; see the module's docstring.
      chunk_size: tokens in a chunk; 0: the encoder hears all at once, and cannot stream.
      left_context: tokens before its chunk that a token sees, where there are chunks.
      mel_mean, mel_deviation: what is subtracted from the frames, and what they are divided by; for
        frames that are not normalised by utterance.
      position_period: positions begin anew after so many tokens, so that a stream of any length meets
        none that training did not; 0: they go on. At least chunk_size + left_context tells apart
        all that a token sees.
      style: what a block computes (models/style.py).
      positions: 'fixed', or for front_end='convolution' 'learned': a table of parameters (Whisper's
        file has one, of sinusoids).
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
    chunk_size: int = 0
    left_context: int = 32
    mel_mean: float = 0.0
    mel_deviation: float = 1.0
    position_period: int = 0
    style: Style = Style()
    positions: str = "fixed"

    def __post_init__(self):
        if self.positions not in ("fixed", "learned"):
            raise UserError(f"SpeechEncoder.positions={self.positions!r}; valid: fixed, learned")
        if self.positions == "learned" and self.front_end != "convolution":
            raise UserError(
                f"SpeechEncoder.positions='learned': with front_end={self.front_end!r} must be 'fixed'"
            )
        if self.front_end == "convolution" and (self.causal or self.chunk_size):
            raise UserError(
                "SpeechEncoder.front_end='convolution': hears a frame ahead; with causal or chunk_size"
                " must be 'local' or 'linear'"
            )
        if self.front_end == "convolution" and self.position_period:
            raise UserError(
                f"SpeechEncoder.position_period={self.position_period}: with"
                " front_end='convolution' must be 0"
            )
        if self.style.first_norm:
            raise UserError("SpeechEncoder.style.first_norm=True: must be False")
        for key in ("chunk_size", "left_context", "position_period"):
            if getattr(self, key) < 0:
                raise UserError(f"SpeechEncoder.{key}={getattr(self, key)}: must be 0 or more")
        if self.chunk_size and self.relative_position != "none":
            raise UserError(
                f"SpeechEncoder.relative_position={self.relative_position!r}: with chunk_size="
                f"{self.chunk_size} must be 'none'"
            )
        if self.chunk_size and self.stack.experts is not None:
            raise UserError(
                "SpeechEncoder.stack.experts: their places depend on later tokens; with chunk_size="
                f"{self.chunk_size} must be None"
            )
        if self.mel_deviation <= 0:
            raise UserError(f"SpeechEncoder.mel_deviation={self.mel_deviation}: must be above 0")
        super().__post_init__()

    def setup(self):
        if self.front_end not in ("local", "linear", "convolution"):
            raise ValueError(f"front_end={self.front_end!r}; valid: convolution, linear, local")
        if self.front_end == "convolution":
            self.convolutions = [
                TimeConvolution(self.width, 3, stride, padding=(1, 1), use_bias=True)
                for stride in (1, self.stride)
            ]
        if self.positions == "learned":
            places = self.token_count(self.frames)
            # Flax reserves the field's name for the field.
            self.places = self.param("token_position", lambda key: sinusoid(places, self.width))
        self.front = Dense(self.width, kernel_init=nn.initializers.lecun_normal())
        self.front_out = Dense(self.width, kernel_init=nn.initializers.lecun_normal())
        self.front_norm = LayerNorm(self.style.epsilon)
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
            style=self.style,
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
        latents = self._latents(mel, lengths)
        return latents, within(self.token_count(lengths), latents.shape[1])

    def normalise(self, latents: jax.Array) -> jax.Array:
        """The latents as `contextualise` uses them."""
        return self.front_norm(latents) if self.front_end == "local" else latents

    def contextualise(
        self, latents: jax.Array, mask: jax.Array, masked: jax.Array | None = None
    ) -> Encoded:
        """The transformer over latents, those where `masked` is true being hidden."""
        x = self._visible(latents, mask, masked)
        if self.front_end == "linear":
            x = self.front_norm(
                x + self._positions(alternating_sinusoid, x.shape[1], 0).astype(x.dtype)
            )
        elif self.front_end == "convolution":
            learned = self.positions == "learned"
            places = self.places[: x.shape[1]] if learned else sinusoid(x.shape[1], self.width)
            x += places.astype(x.dtype)
        else:
            x = self._with_neighbours(x)
        see = mask
        if self.chunk_size:
            see = mask[:, None] & chunk_mask(x.shape[1], self.chunk_size, self.left_context)
        x, layers = self.transformer(self.drop(x), see, real=mask)
        return Encoded(tokens=x, mask=mask, layers=layers, rate=FRAME_RATE / self.stride)

    @nn.nowrap
    def silence(self, batch: int) -> Heard:
        """What is known before the first chunk."""
        cache = empty(
            Recent,
            batch=batch,
            length=self.left_context,
            width=self.width,
            heads=self.heads,
            stacks=Transformer(
                self.depth, self.heads, shared_layers=self.shared_layers, stack=self.stack
            ).cache_stacks(),
        )
        return Heard(jnp.zeros((), jnp.int32), jnp.zeros((batch, 2, self.width)), cache)

    def stream(self, mel: jax.Array, lengths: jax.Array, heard: Heard) -> tuple[Encoded, Heard]:
        """The states of the next chunk: what the call with all chunks gives there.

        Args:
          mel: [B, chunk_size * stride, bands], the frames of one chunk.
          lengths: int32 [B], the real ones; fewer than all only where a row ends.
          heard: from `silence` or from the chunk before.
        """
        size = self.chunk_size
        if not size:
            raise UserError("SpeechEncoder.chunk_size=0: cannot stream; set it to 1 or more")
        if mel.shape[1] != size * self.stride or mel.shape[2] != self.bands:
            raise ValueError(
                f"mel {mel.shape}: must be [B, {size * self.stride}, {self.bands}], one chunk"
            )
        latents = self._latents(mel, lengths)
        mask, at = within(self.token_count(lengths), size), heard.tokens
        x = self._visible(latents, mask, None)
        before = jnp.concatenate([heard.before.astype(x.dtype), x], axis=1)
        if self.front_end == "linear":
            x = self.front_norm(x + self._positions(alternating_sinusoid, size, at).astype(x.dtype))
        else:
            x = self._convolved(x, before, at)
        there = at - self.left_context + jnp.arange(self.left_context) >= 0
        there = jnp.broadcast_to(there, (mel.shape[0], self.left_context))
        see = jnp.concatenate([there, mask], axis=1)[:, None]
        order = jnp.ones((size, self.left_context + size), bool)
        if self.causal:
            order = jnp.tril(order, self.left_context)
        x, layers, cache = self.transformer(x, see & order, real=mask, cache=heard.cache, at=at)
        encoded = Encoded(tokens=x, mask=mask, layers=layers, rate=FRAME_RATE / self.stride)
        return encoded, Heard(at + size, before[:, -2:], cache)

    def _latents(self, mel: jax.Array, lengths: jax.Array) -> jax.Array:
        mel = (mel - self.mel_mean) / self.mel_deviation
        if self.front_end == "convolution":
            first, second = self.convolutions
            real = within(lengths, mel.shape[1])
            # Zeros behind the end again, or the second would see what the first made of padding.
            return gelu(second(zero_beyond(gelu(first(zero_beyond(mel, real))), real)))
        latents = self.front(stack_frames(mel, lengths, self.stride))
        return self.front_out(gelu(latents)) if self.front_end == "local" else latents

    def _visible(self, latents: jax.Array, mask: jax.Array, masked: jax.Array | None) -> jax.Array:
        """The latents normalised, the hidden ones replaced; zeros where there is nothing."""
        x = self.normalise(latents)
        if masked is not None:
            x = jnp.where(masked[..., None], self.mask_token.astype(x.dtype), x)
        return zero_beyond(x, mask)

    def _with_neighbours(self, x: jax.Array) -> jax.Array:
        """x [B, N, D], the convolution over three tokens and the positions, added up."""
        before, after = (2, 0) if self.causal or self.chunk_size else (1, 1)
        return self._convolved(x, jnp.pad(x, ((0, 0), (before, after), (0, 0))), 0)

    def _convolved(self, x: jax.Array, padded: jax.Array, start: jax.Array | int) -> jax.Array:
        """x from position `start` on; padded [B, N + 2, D] has what it is convolved with."""
        neighbours = [padded[:, i : i + x.shape[1]] for i in range(3)]
        x = x + gelu(self.local(jnp.concatenate(neighbours, axis=-1)))
        return x + self._positions(sinusoid, x.shape[1], start).astype(x.dtype)

    def _positions(self, kind, count: int, start: jax.Array | int) -> jax.Array:
        """[count, D]: those of the tokens from `start` on."""
        if not self.position_period:
            return kind(count, self.width, start)
        table = kind(self.position_period, self.width)
        return table[(start + jnp.arange(count)) % self.position_period]
