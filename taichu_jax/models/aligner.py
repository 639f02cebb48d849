"""How alike every symbol and every frame are (arXiv 2108.10447, section 2.1).

Convolutions encode the symbols' embeddings and the log-mel frames; a symbol is the likelier at a frame
the closer its encoding is:

    p(n | t) = softmax over n of  - temperature |f(t) - g(n)|^2 + log prior(n | t)

The sizes are those of the authors' code.

A softmax over symbols has a cheap way out: the few symbols of one kind, such as spaces, come near to all
frames, take nearly all of them, leave one to each letter, and no letter's sound is learnt. `centred`
closes it by taking from every distance the symbol's mean distance over the recording,

    |f(t) - g(n)|^2 - mean over the real frames t' of |f(t') - g(n)|^2,

so that over a whole recording no symbol is nearer than another. This is ours, and off by default: the
paper and its code have plain distances.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense
from taichu_jax.ops.alignment import NEVER, beta_binomial_prior
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.taps import taps


class Aligner(nn.Module):
    """Embeddings [B, N, D] and frames [B, F, M] to log p(symbol | frame), float32 [B, F, N].

    Attributes:
      width: of the encodings.
      temperature: factor of the squared distances.
      concentration: of the beta-binomial prior; 0 for no prior.
      mel_mean, mel_deviation: of the frames over the data, which the network sees removed.
      centred: symbols' mean distances over a recording are made equal, see above.
    """

    width: int = 80
    temperature: float = 5e-4
    concentration: float = 1.0
    mel_mean: float = 0.0
    mel_deviation: float = 1.0
    centred: bool = False

    @nn.compact
    def __call__(
        self, embedded: jax.Array, symbols: jax.Array, mel: jax.Array, frames: jax.Array
    ) -> jax.Array:
        """Rows of log_p sum to 1 over the real symbols; NEVER behind them.

        Args:
          symbols, frames: int32 [B], what is real of N and of F.
        """
        heard, read = within(frames, mel.shape[1]), within(symbols, embedded.shape[1])
        mel = (mel - self.mel_mean) / self.mel_deviation
        query = zero_beyond(mel.astype(embedded.dtype), heard)
        query = jax.nn.relu(Dense(2 * mel.shape[-1], name="frames_0")(taps(query, 3, before=1)))
        query = jax.nn.relu(Dense(mel.shape[-1], name="frames_1")(query))
        query = Dense(self.width, name="frames_2")(query).astype(jnp.float32)
        key = zero_beyond(embedded, read)
        key = jax.nn.relu(Dense(2 * embedded.shape[-1], name="symbols_0")(taps(key, 3, before=1)))
        key = Dense(self.width, name="symbols_1")(key).astype(jnp.float32)

        if self.centred:  # |g|^2 and f's mean are in every distance to g, and go
            mean = zero_beyond(query, heard).sum(1) / jnp.maximum(frames, 1)[:, None]
            query -= mean[:, None]
        products = jnp.einsum("bfd,bnd->bfn", query, key)
        # |f|^2 is the same for all symbols of a frame, so the softmax does not see it.
        own = 0.0 if self.centred else jnp.square(key).sum(-1)[:, None]
        scores = self.temperature * (2 * products - own)
        if self.concentration:
            shape = (mel.shape[1], embedded.shape[1])
            scores += beta_binomial_prior(frames, symbols, shape, self.concentration)
        return jax.nn.log_softmax(jnp.where(read[:, None], scores, NEVER))
