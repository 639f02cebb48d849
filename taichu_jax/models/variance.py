"""What text leaves open and a voice decides: FastSpeech 2's variance adaptor (arXiv 2006.04558).

Duration and pitch are predicted from a symbol's state. The embedding of its pitch is added before its
energy is predicted, and that of its energy before the state is lengthened. In training the recording's
own values are embedded, in use the predicted ones. One value a symbol, embedded by a convolution, as in
FastPitch (arXiv 2006.06873), where the paper has one a frame, in 256 bins.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from flax import linen as nn

from taichu_jax.models.layers import Dense, Dropout, LayerNorm
from taichu_jax.ops.lengths import zero_beyond
from taichu_jax.ops.taps import taps


class VariancePredictor(nn.Module):
    """States [B, N, D] to one number each, [B, N]: convolutions, each with ReLU, layer norm, dropout.

    Attributes:
      width, size: of the convolutions.
      layers: how many.
    """

    width: int = 256
    size: int = 3
    layers: int = 2
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """mask: bool [B, N]; states behind it are not looked at, and their numbers are 0."""
        for i in range(self.layers):
            seen = taps(zero_beyond(x, mask), self.size, before=(self.size - 1) // 2)
            x = jax.nn.relu(Dense(self.width, name=f"convolution_{i}")(seen))
            x = Dropout(self.dropout)(LayerNorm(name=f"norm_{i}")(x))
        return zero_beyond(Dense(1, name="value")(x)[..., 0], mask)


class Varied(NamedTuple):
    """What the adaptor makes of a symbol.

    Attributes:
      states: [B, N, D], with the embeddings of pitch and energy.
      log_durations: predicted ln(1 + frames) [B, N].
      pitch, energy: predicted, [B, N].
    """

    states: jax.Array
    log_durations: jax.Array
    pitch: jax.Array
    energy: jax.Array


class VarianceAdaptor(nn.Module):
    """States to `Varied`.

    Attributes:
      width, size, layers, dropout: of the three predictors.
      embedding_size: of the convolutions over the symbols' pitch and energy.
    """

    width: int = 256
    size: int = 3
    layers: int = 2
    dropout: float = 0.5
    embedding_size: int = 3

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        pitch: jax.Array | None = None,
        energy: jax.Array | None = None,
        pitch_shift: jax.Array | float = 0.0,
        energy_shift: jax.Array | float = 0.0,
    ) -> Varied:
        """The states with the given pitch and energy [B, N], or with the predicted ones, shifted.

        All of mean 0 and variance 1 over the data.
        """

        def predictor(name):
            options = (self.width, self.size, self.layers, self.dropout)
            return VariancePredictor(*options, name=name)

        def embedded(value, name):
            value = zero_beyond(value.astype(x.dtype), mask)[..., None]
            seen = taps(value, self.embedding_size, before=(self.embedding_size - 1) // 2)
            return Dense(x.shape[-1], name=name)(seen)

        log_durations = predictor("duration")(x, mask)
        own_pitch = predictor("pitch")(x, mask)
        used = own_pitch + pitch_shift if pitch is None else pitch
        x = x + embedded(used, "pitch_convolution")
        own_energy = predictor("energy")(x, mask)
        used = own_energy + energy_shift if energy is None else energy
        x = zero_beyond(x + embedded(used, "energy_convolution"), mask)
        return Varied(x, log_durations, own_pitch, own_energy)
