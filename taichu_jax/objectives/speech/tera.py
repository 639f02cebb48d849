"""Speech altered in time, frequency and magnitude, reconstructed: TERA (arXiv 2007.06028).

    L = 1/|C| sum_{(t, m) in C} | x_{t, m} - y_{t, m} |,    y = head(h(altered x))

Spans of frames are hidden as in Mockingjay; then one range of up to 20 % of the bands is zeroed through
the whole utterance; then, with probability 0.15, Gaussian noise is added to every cell of it, hidden
ones too (ops/alterations.py). C are the cells of the first two; noise adds none, but where it is the
only alteration C is every real cell. A rate or share of 0 turns its alteration off.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second, every band with mean 0 and variance 1
(the noise's size is meant for that); `mel_lengths` int32 [B], in frames.
Networks: `encoder`, blind to nothing (`SpeechEncoder`); `head`, from states to stride * M values, the
frames of a token one after the other. The authors' are SpeechEncoder(front_end='linear') and
Projection(hidden=width, norm='after'); the defaults of both differ, and their blocks are post-norm
unless pre_layer_norm is set.
Defaults: the authors' configuration with all three (s3prl, logMelBase-T-F-M): 15 % in spans of 7,
80/10/10, 20 % of the bands, noise of deviation 0.2 with probability 0.15; their base configuration has
no noise (noise_rate=0). The paper describes the draw for noise per utterance, as here; the authors' code
draws once for the whole batch, which is `whole_batch`.
Checked against: a NumPy loop over cells given the same draws, each alteration alone and all together;
Mockingjay where only time is altered; exact statistics of the alterations; model and loss of s3prl
0.4.18 (pre_layer_norm) with the same weights and alterations: hidden states, predictions, loss, all
gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.alterations import (
    alter_frequency,
    alter_magnitude,
    alter_time,
    reconstruction_error,
)
from taichu_jax.ops.lengths import within
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tera(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      rate, span: time: share of the frames that is chosen and length of the spans, in frames.
      zero_rate, random_rate: probabilities that an utterance's spans are zeroed, or replaced.
      band_share: frequency: the widest hidden range, as a share of the bands.
      noise_rate, noise: magnitude: probability of noise and its standard deviation.
      whole_batch: whether one draw decides on noise for the whole batch.
    """

    encoder: str = "speech"
    head: str = "tera_head"
    rate: float = 0.15
    span: int = 7
    zero_rate: float = 0.8
    random_rate: float = 0.1
    band_share: float = 0.2
    noise_rate: float = 0.15
    noise: float = 0.2
    whole_batch: bool = False

    def __post_init__(self):
        if not (self.rate or self.band_share or self.noise_rate):
            raise UserError("rate=0, band_share=0 and noise_rate=0: nothing would be altered")

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        real = within(lengths, mel.shape[1])
        altered, where, noisy = self.alter(mel, lengths, rng)
        encoded = nets(self.encoder, altered, lengths)
        predicted = nets(self.head, encoded.tokens)
        total, count = reconstruction_error(predicted, mel, lengths, where)
        metrics = {
            # what predicting zero, the mean of every band, would cost
            "mean_error": counted(jnp.abs(mel), where),
            "altered_share": counted(where, real[..., None]),
            "noisy_share": counted(noisy, real[..., None]),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)

    def alter(self, mel, lengths, rng):
        """(altered mel, the cells that are reconstructed, the cells with noise), each [B, F, M]."""
        altered, where = mel, jnp.zeros(mel.shape, bool)
        noisy = where
        if self.rate:
            altered, where = alter_time(
                fold_name(rng, "time"),
                mel,
                lengths,
                rate=self.rate,
                span=self.span,
                zero_rate=self.zero_rate,
                random_rate=self.random_rate,
            )
        if self.band_share:
            altered, hidden = alter_frequency(
                fold_name(rng, "frequency"), altered, lengths, share=self.band_share
            )
            where |= hidden
        if self.noise_rate:
            altered, noisy = alter_magnitude(
                fold_name(rng, "magnitude"),
                altered,
                lengths,
                rate=self.noise_rate,
                deviation=self.noise,
                whole_batch=self.whole_batch,
            )
        if not (self.rate or self.band_share):
            where = jnp.broadcast_to(within(lengths, mel.shape[1])[..., None], mel.shape)
        return altered, where, noisy
