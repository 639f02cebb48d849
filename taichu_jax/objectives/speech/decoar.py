"""A slice of speech from what is before and behind it: DeCoAR (arXiv 1912.01679).

    L = 1 / (T' (K + 1) M) sum_t sum_{i=0..K} | x_{t+i} - f_i([h_fwd(t); h_bwd(t + K)]) |_1

h_fwd(t) has read x_1 .. x_t, h_bwd(t + K) has read x_T .. x_{t+K}; f_i is a feed-forward network with
weights of its own for every place i of the slice. The sum runs over all T' = T - K slices that lie within
the utterance; the paper writes the sum, the mean is taken here. Both ends of a slice have been read, so
what is predicted is what lies between.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second; `mel_lengths` int32 [B], in frames.
Networks: `encoder`, whose states are [h_fwd; h_bwd] (`BidirectionalEncoder`); `head` (`SliceHead` with
frames = K + 1).
Defaults: K = 18 from the paper. A public model for fairseq whose encoder is that of the authors' release
(awslabs/speech-representations) takes 17, which makes slices of 18 frames.
Checked against: a NumPy triple loop over utterances, slices and places, given the encoder's states; the
encoder against NumPy loops over time in both directions, padded rows included; no prediction depends on
what lies strictly between the ends of its slice.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.monitors import feature_std


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeCoAR(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      ahead: K, frames from the first of a slice to its last.
    """

    encoder: str = "speech"
    head: str = "decoar_head"
    ahead: int = 18

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        frames, ahead = mel.shape[1], self.ahead
        if not 1 <= ahead < frames:
            raise UserError(
                f"ahead={ahead}: must be from 1 to {frames - 1}, below the batch's frames"
            )
        encoded = nets(self.encoder, mel, lengths)
        states = encoded.tokens
        if states.shape[1] != frames or states.shape[2] % 2:
            raise UserError(
                f"network {self.encoder!r} gives {states.shape[1]} states of {states.shape[2]} channels"
                f" for {frames} frames; DeCoAR needs one per frame, half of it for each direction"
            )
        half = states.shape[2] // 2
        around = jnp.concatenate([states[:, :-ahead, :half], states[:, ahead:, half:]], axis=-1)
        predicted = nets(self.head, around).astype(jnp.float32)

        mel = zero_beyond(mel, encoded.mask).astype(jnp.float32)
        count = frames - ahead  # slices that fit, counted from their first frame
        slices = jnp.stack([mel[:, i : i + count] for i in range(ahead + 1)], axis=2)
        if predicted.shape != slices.shape:
            raise UserError(
                f"network {self.head!r} gives slices of {predicted.shape[2:]} (frames, bands), ahead="
                f"{ahead} and mel make them {slices.shape[2:]}"
            )
        there = within(lengths - ahead, count)[..., None, None]
        errors = jnp.abs(slices - predicted)
        total, cells = counted(errors, there)
        share = (jnp.arange(ahead + 1) / ahead)[:, None]
        line = (1 - share) * slices[:, :, :1] + share * slices[:, :, -1:]
        metrics = {
            # what a straight line between the ends costs: a prediction is worth something below it
            "line_error": counted(jnp.abs(slices - line), there),
            "middle_error": counted(errors[:, :, ahead // 2], there[..., 0]),
            "feature_std": feature_std(states, encoded.mask),
        }
        return Loss(mean_of(total, cells), metrics)
