"""Speech encoder that looks around a frame, but not at it (NPC, arXiv 2011.00406).

The authors normalise with batch normalisation. Here every frame is normalised over its channels (layer
normalisation) instead: statistics over the batch and over time contain the hidden centre, and so carry a
trace of it to the prediction; they also tie a state to the whole utterance, to its padding and to the
other examples, need state beside the parameters, and differ between training and use. With layer
normalisation a state is a function of the R frames around it, at any time and in any batch. The same
holds for norm='batch', whose statistics are fixed: it is there for weights that others have trained.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.config import choices
from taichu_jax.models.heads import ACTIVATIONS
from taichu_jax.models.layers import Dense, Dropout, Encoded, FrozenBatchNorm, LayerNorm
from taichu_jax.models.speech import FRAME_RATE
from taichu_jax.ops.lengths import within, zero_beyond

NORMS = {"layer": LayerNorm, "batch": FrozenBatchNorm}


def neighbours(x: jax.Array, offsets: list[int]) -> jax.Array:
    """[B, T, len(offsets) * C]: x [B, T, C] at t + o for every offset o; zeros outside."""
    reach = max(abs(o) for o in offsets)
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    shifted = [padded[:, reach + o : reach + o + x.shape[1]] for o in offsets]
    return jnp.concatenate(shifted, axis=-1)


class ConvBlock(nn.Module):
    """Convolution over three frames, norm, activation, linear, norm, dropout; plus its input; activation.

    Attributes:
      residual: whether the input is added.
      norm, activation: as in `LocalContextEncoder`.
    """

    width: int
    residual: bool
    dropout: float = 0.0
    norm: str = "layer"
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = ACTIVATIONS[self.activation]

        def normalised(y, name):
            return y if self.norm == "none" else NORMS[self.norm](name=name)(y)

        y = Dense(self.width, name="convolution")(neighbours(x, [-1, 0, 1]))
        y = activation(normalised(y, "convolution_norm"))
        y = normalised(Dense(self.width, name="linear")(y), "linear_norm")
        y = Dropout(self.dropout)(y)
        return activation(x + y if self.residual else y)


class LocalContextEncoder(nn.Module):
    """Log-mel frames to hidden states, one per frame, each blind to the `mask` frames at its centre.

    Block i = 1, 2, .. sees i frames to either side. A convolution over `kernel` of its outputs, from
    which the mask + 2 i at the centre are left out, has then seen nothing of the centre of the input:

        token_t = sum_i tanh(b_i + sum_{(mask + 2 i) / 2 < |o| <= kernel / 2} block_i(t + o) W_{i, o})

    It sees kernel + 2 blocks frames, less the centre. The weights of hidden offsets, which the authors
    multiply with zero, are not there at all. `Encoded.tokens` are these masked states; `Encoded.layers`
    are the outputs of the blocks, which see the centre: what to probe.

    Attributes:
      kernel, mask: frames, both odd.
      dropout: in every block; 0.1 in the authors' code.
      norm: 'layer'; 'batch', its statistics not updated by training (`FrozenBatchNorm`); or 'none'.
      activation: of the blocks; 'relu', 'tanh' or another one of `heads.ACTIVATIONS`.
      residual: every block but the first adds its input.
      cross_layer: the masked states of all blocks are summed; if not, they are those of the last block.
    """

    width: int = 512
    blocks: int = 4
    kernel: int = 15
    mask: int = 5
    dropout: float = 0.0
    norm: str = "layer"
    activation: str = "relu"
    residual: bool = True
    cross_layer: bool = True

    @nn.compact
    def __call__(self, mel: jax.Array, lengths: jax.Array) -> Encoded:
        """mel: [B, F, bands]; lengths: int32 [B], the real frames."""
        if self.kernel % 2 == 0 or self.mask % 2 == 0:
            raise ValueError(f"kernel={self.kernel} and mask={self.mask} must be odd")
        if self.mask + 2 * self.blocks >= self.kernel:
            raise ValueError(
                f"kernel={self.kernel}: must be above mask + 2 blocks = {self.mask + 2 * self.blocks},"
                " or the last block's convolution sees nothing"
            )
        for field, valid in (("norm", [*NORMS, "none"]), ("activation", ACTIVATIONS)):
            if getattr(self, field) not in valid:
                wrong = getattr(self, field)
                raise ValueError(f"{field}={wrong!r}; {choices(wrong, valid)}")
        real = within(lengths, mel.shape[1])
        x = zero_beyond(mel, real)
        tokens, layers = jnp.zeros((), x.dtype), [x]
        for i in range(1, self.blocks + 1):
            x = ConvBlock(
                self.width,
                self.residual and i > 1,
                self.dropout,
                self.norm,
                self.activation,
                name=f"block_{i}",
            )(x)
            x = zero_beyond(x, real)
            layers.append(x)
            if i < self.blocks and not self.cross_layer:
                continue
            first, last = (self.mask + 2 * i) // 2 + 1, self.kernel // 2
            right = list(range(first, last + 1))
            around = neighbours(x, [-o for o in reversed(right)] + right)
            tokens += jnp.tanh(Dense(self.width, name=f"masked_{i}")(around))
        tokens = zero_beyond(tokens, real)
        return Encoded(tokens=tokens, mask=real, layers=tuple(layers), rate=FRAME_RATE)
