"""Two stacks of recurrent layers, one from left to right, one from right to left (DeCoAR, 1912.01679)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout, Encoded
from taichu_jax.models.recurrent import Recurrence, check_cell
from taichu_jax.models.speech import FRAME_RATE
from taichu_jax.ops.lengths import within, zero_beyond


def reverse_within(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """x [B, T, C] with the first `lengths` [B] steps of every row in reverse order, the rest in place."""
    steps = jnp.arange(x.shape[1])
    source = jnp.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return jnp.take_along_axis(x, source[..., None], axis=1)


class BidirectionalEncoder(nn.Module):
    """Log-mel frames to hidden states, one per frame: the first half of the channels has seen the past
    and the frame itself, the second half the future and the frame itself.

    The two stacks share nothing but a linear map of the input, so that neither half knows what the
    other reads (a bidirectional layer above another one would). `Encoded.layers` starts with that map,
    once for each direction. States behind the end are zero.

    Attributes:
      width: of each direction; states have twice as many channels.
      depth: layers of each direction.
      cell: 'lstm' (the paper) or 'gru'.
      dropout: on the output of every layer.
    """

    width: int = 1024
    depth: int = 4
    cell: str = "lstm"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, mel: jax.Array, lengths: jax.Array) -> Encoded:
        """mel: [B, F, bands]; lengths: int32 [B], the real frames."""
        check_cell(self.cell)
        mask = within(lengths, mel.shape[1])
        forward = zero_beyond(Dense(self.width, name="projection")(zero_beyond(mel, mask)), mask)
        backward = reverse_within(forward, lengths)  # starts at the last real frame
        layers = [jnp.concatenate([forward, forward], axis=-1)]
        for i in range(self.depth):
            forward = Recurrence(self.width, self.cell, name=f"forward_{i}")(forward)
            backward = Recurrence(self.width, self.cell, name=f"backward_{i}")(backward)
            forward, backward = (Dropout(self.dropout)(x) for x in (forward, backward))
            both = jnp.concatenate([forward, reverse_within(backward, lengths)], axis=-1)
            layers.append(zero_beyond(both, mask))
        return Encoded(tokens=layers[-1], mask=mask, layers=tuple(layers), rate=FRAME_RATE)


class PlacedDense(nn.Module):
    """A linear map of its own for each of `places`: [B, N, C] or [B, N, places, C] to
    [B, N, places, features]."""

    places: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.places, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(batch_axis=(0,)), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.places, self.features))
        product = "bnc,pcf->bnpf" if x.ndim == 3 else "bnpc,pcf->bnpf"
        return jnp.einsum(product, x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class SliceHead(nn.Module):
    """What lies around a slice to its frames: [B, N, C] -> [B, N, frames, bands].

    A feed-forward network with one hidden layer and ReLU, with other weights for every place.

    Attributes:
      frames: of a slice.
      hidden: units between; 512 in the paper.
    """

    frames: int
    bands: int = 80
    hidden: int = 512

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(PlacedDense(self.frames, self.hidden, name="up")(x))
        return PlacedDense(self.frames, self.bands, name="down")(hidden)
