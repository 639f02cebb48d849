"""The two networks that a transducer adds to a speech encoder (arXiv 1211.3711)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout
from taichu_jax.models.recurrent import Recurrence
from taichu_jax.ops.vocabulary import CLS


class Predictor(nn.Module):
    """The prediction network: a state for every number of labels written so far.

    Long short-term memory over [CLS], y_1 .. y_U. (The paper starts from a zero vector and feeds
    labels one-hot: a learned first vector and an embedding are the same layer otherwise.)

    Attributes:
      vocab_size: number of ids.
      dropout: on the embeddings.
    """

    vocab_size: int
    width: int = 128
    dropout: float = 0.0

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        """States [B, U + 1, width] of labels int32 [B, U]; state u has seen the first u labels."""
        normal = nn.initializers.normal(1.0)
        embedding = self.param("token_embedding", normal, (self.vocab_size, self.width))
        ids = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=CLS)
        x = Dropout(self.dropout)(embedding[ids])
        return Recurrence(self.width, "lstm", name="layer_0")(x)


class Joiner(nn.Module):
    """Scores of all ids at every pair of a speech state and a number of labels.

    hidden = 0: f_t W + g_u V, added as in arXiv 1211.3711, eq. 12; else a layer of tanh units between
    (arXiv 1303.5778, eq. 16).
    """

    vocab_size: int
    hidden: int = 128

    @nn.compact
    def __call__(self, states: jax.Array, predictions: jax.Array) -> jax.Array:
        """[B, T, U, V] of states [B, T, D] and predictions [B, U, E]."""
        width = self.hidden or self.vocab_size
        heard = Dense(width, name="heard")(states)[:, :, None]
        written = Dense(width, use_bias=False, name="written")(predictions.astype(states.dtype))
        both = heard + written[:, None]
        if not self.hidden:
            return both
        return Dense(self.vocab_size, name="scores")(jnp.tanh(both))
