"""Text to log-mel frames, all at once: the networks of FastSpeech 2 (arXiv 2006.04558).

Symbols -> blocks of attention and convolutions -> variance adaptor -> every state as often as its symbol
lasts -> blocks -> log-mel frames -> post-net. Differences from the paper:
* Pitch and energy are one number a symbol (models/variance.py), durations come from learned alignments
  (models/aligner.py); the paper has a forced aligner and values per frame.
* Blocks are pre-norm, as everywhere in this project; theirs are post-norm.
* The post-net (Tacotron 2, arXiv 1712.05884) is that of the widespread code, not of the paper, and
  without its batch normalisation.
* A language has an embedding, where the code has one of the speaker.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.attention import Attention
from taichu_jax.models.layers import Dense, Dropout, LayerNorm, sinusoid
from taichu_jax.models.variance import VarianceAdaptor
from taichu_jax.ops.constrain import BATCH, constrain
from taichu_jax.ops.durations import frames_of, lengthened
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.taps import taps


class ConvolutionalFeedForward(nn.Module):
    """Two convolutions of `sizes` with ReLU between; `hidden` channels between."""

    hidden: int
    sizes: tuple[int, int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        y = Dense(self.hidden, name="up")(_seen(zero_beyond(x, mask), self.sizes[0]))
        y = constrain(jax.nn.relu(y), BATCH, None, "tensor")
        y = zero_beyond(Dropout(self.dropout)(y), mask)
        return Dense(x.shape[-1], name="down")(_seen(y, self.sizes[1]))


class ConvolutionalBlock(nn.Module):
    """Self-attention, then convolutions; each x + f(norm(x))."""

    heads: int
    hidden: int
    sizes: tuple[int, int]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        y = LayerNorm(name="attention_norm")(x)
        see = mask[:, None, None]
        y = Attention(self.heads, self.dropout, name="attention")(y, y, see)
        x = x + Dropout(self.dropout)(y)
        y = LayerNorm(name="feed_forward_norm")(x)
        layer = ConvolutionalFeedForward(self.hidden, self.sizes, self.dropout, name="feed_forward")
        return x + Dropout(self.dropout)(layer(y, mask))


class PostNet(nn.Module):
    """What is added to log-mel frames: convolutions, all but the last with tanh."""

    layers: int
    width: int
    size: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, mel: jax.Array, mask: jax.Array) -> jax.Array:
        x = mel
        for i in range(self.layers):
            last = i == self.layers - 1
            features = mel.shape[-1] if last else self.width
            seen = _seen(zero_beyond(x, mask), self.size)
            x = Dense(features, name=f"convolution_{i}")(seen)
            x = Dropout(self.dropout)(x if last else jnp.tanh(x))
        return x


class Spoken(NamedTuple):
    """What is said, given how long, how high and how loud each symbol is.

    Attributes:
      mel: the decoder's log-mel frames [B, F, M].
      refined: those of the post-net; None without one.
      log_durations: predicted ln(1 + frames) [B, N].
      pitch, energy: predicted, [B, N], of mean 0 and variance 1 over the data.
      states: the encoder's [B, N, D].
    """

    mel: jax.Array
    refined: jax.Array | None
    log_durations: jax.Array
    pitch: jax.Array
    energy: jax.Array
    states: jax.Array


class Synthesis(NamedTuple):
    """What is said of text alone.

    Attributes:
      mel: log-mel frames [B, F, M].
      lengths: int32 [B], the real ones.
      durations: int32 [B, N]; their sum is above the length where F frames were not enough.
      pitch, energy: predicted, [B, N], before they were shifted.
    """

    mel: jax.Array
    lengths: jax.Array
    durations: jax.Array
    pitch: jax.Array
    energy: jax.Array


class FastSpeech(nn.Module):
    """See the module's docstring. The defaults are the paper's; the released code has a decoder of 6.

    Attributes:
      vocab_size: number of symbols.
      languages: number of languages; 0 for a network that is not told.
      encoder_depth, decoder_depth, heads: blocks and their heads.
      hidden, sizes: channels between the two convolutions of a block, and their taps.
      dropout: in the blocks; 0 turns all dropout off.
      predictor_width, predictor_size, predictor_layers, predictor_dropout: models/variance.py.
      post_layers, post_width, post_size, post_dropout: of the post-net; 0 layers for none.
      bands: mel bands.
      mel_mean, mel_deviation: of the frames over the data, which the network does not have to learn.
    """

    vocab_size: int
    languages: int = 0
    width: int = 256
    encoder_depth: int = 4
    decoder_depth: int = 4
    heads: int = 2
    hidden: int = 1024
    sizes: tuple[int, int] = (9, 1)
    dropout: float = 0.1
    predictor_width: int = 256
    predictor_size: int = 3
    predictor_layers: int = 2
    predictor_dropout: float = 0.5
    post_layers: int = 5
    post_width: int = 512
    post_size: int = 5
    post_dropout: float = 0.5
    bands: int = 80
    mel_mean: float = 0.0
    mel_deviation: float = 1.0

    def setup(self):
        if self.width % 2 or self.width % self.heads:
            raise UserError(
                f"width={self.width}: must be even, and a multiple of heads={self.heads}"
            )
        # PyTorch's, which the code has: as large as positions, and for the aligner to tell symbols apart.
        normal = nn.initializers.normal(1.0)
        self.token_embedding = self.param("token_embedding", normal, (self.vocab_size, self.width))
        if self.languages:
            shape = (self.languages, self.width)
            self.language_embedding = self.param("language_embedding", normal, shape)
        options = (self.heads, self.hidden, self.sizes, self.dropout)
        self.encoder = [ConvolutionalBlock(*options) for _ in range(self.encoder_depth)]
        self.encoder_norm = LayerNorm()
        self.adaptor = VarianceAdaptor(
            width=self.predictor_width,
            size=self.predictor_size,
            layers=self.predictor_layers,
            dropout=self.predictor_dropout,
        )
        self.decoder = [ConvolutionalBlock(*options) for _ in range(self.decoder_depth)]
        self.decoder_norm = LayerNorm()
        self.bands_head = Dense(self.bands)
        if self.post_layers:
            sizes = (self.post_layers, self.post_width, self.post_size)
            self.post_net = PostNet(*sizes, self.post_dropout)

    def embed(self, text: jax.Array, language: jax.Array | None = None) -> jax.Array:
        """[B, N, D] of symbols int32 [B, N] in languages int32 [B], without their places."""
        x = self.token_embedding[text]
        if not self.languages:
            return x
        if language is None:
            raise UserError(f"languages={self.languages}: the network must be told the language")
        return x + self.language_embedding[language][:, None]

    def encode(self, embedded: jax.Array, mask: jax.Array) -> jax.Array:
        """States [B, N, D] of what `embed` gave; mask bool [B, N], the real symbols."""
        x = zero_beyond(self._placed(embedded), mask)
        for block in self.encoder:
            x = block(x, mask)
        return zero_beyond(self.encoder_norm(x), mask)

    def __call__(
        self,
        embedded: jax.Array,
        mask: jax.Array,
        durations: jax.Array,
        pitch: jax.Array,
        energy: jax.Array,
        *,
        frames: int,
    ) -> Spoken:
        """What is said with the given durations int32 [B, N], pitch and energy [B, N]; F = `frames`."""
        states = self.encode(embedded, mask)
        varied = self.adaptor(states, mask, pitch, energy)
        mel, refined = self._decode(varied.states, durations, frames)
        return Spoken(mel, refined, varied.log_durations, varied.pitch, varied.energy, states)

    def synthesise(
        self,
        text: jax.Array,
        lengths: jax.Array,
        language: jax.Array | None = None,
        *,
        frames: int,
        speed: jax.Array | float = 1.0,
        pitch_shift: jax.Array | float = 0.0,
        energy_shift: jax.Array | float = 0.0,
    ) -> Synthesis:
        """What is said of symbols int32 [B, N], of which `lengths` int32 [B] are real.

        Args:
          frames: F, beyond which speech is cut.
          speed: above 1 for faster speech.
          pitch_shift, energy_shift: added to the predicted ones, in deviations over the data.
        """
        mask = within(lengths, text.shape[1])
        states = self.encode(self.embed(text, language), mask)
        varied = self.adaptor(states, mask, pitch_shift=pitch_shift, energy_shift=energy_shift)
        durations = frames_of(varied.log_durations, mask, speed, frames)
        mel, refined = self._decode(varied.states, durations, frames)
        total = jnp.minimum(durations.sum(-1), frames)
        return Synthesis(
            mel if refined is None else refined, total, durations, varied.pitch, varied.energy
        )

    def _placed(self, x):
        return x + sinusoid(x.shape[1], self.width).astype(x.dtype)

    def _decode(self, states, durations, frames):
        """(frames of the decoder, of the post-net or None)."""
        real = within(durations.sum(-1), frames)
        x = zero_beyond(self._placed(lengthened(states, durations, frames)), real)
        for block in self.decoder:
            x = block(x, real)
        mel = self.bands_head(self.decoder_norm(x)).astype(jnp.float32)
        refined = None
        if self.post_layers:
            refined = mel + self.post_net(mel.astype(x.dtype), real).astype(jnp.float32)
            refined = refined * self.mel_deviation + self.mel_mean
        return mel * self.mel_deviation + self.mel_mean, refined


def _seen(x: jax.Array, size: int) -> jax.Array:
    """What a convolution of `size` taps sees, centred, so that it becomes one product."""
    return taps(x, size, before=(size - 1) // 2)
