"""Autoregressive predictive coding: APC (arXiv 1904.03240; journal form 1910.12607).

    L = 1 / (T' M) sum_t sum_m | x_{t+n, m} - y_{t, m} |,    y_t = head(h(x_1 .. x_t))

A network that has seen the past only predicts the frame n steps ahead. The sum runs over the frames
t whose target t + n exists; the paper writes the sum, the authors' code takes the mean as here.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second; `mel_lengths` int32 [B], in frames.
Networks: `encoder`, one state per frame and blind to the future: `RecurrentEncoder`, or `SpeechEncoder`
with stride=1 and causal=True; `head`, from states to M bands.
Defaults: n = 5 from the authors' code (iamyuanchung/VQ-APC) and s3prl; the papers try 1 to 20.
Checked against: a NumPy loop over frames; the recurrent layers against NumPy loops over time; no
state depends on a later frame.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.monitors import feature_std


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoregressivePredictiveCoding(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      shift: how many frames ahead is predicted, n.
    """

    encoder: str = "speech"
    head: str = "apc_head"
    shift: int = 5

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        frames, n = mel.shape[1], self.shift
        if not 1 <= n < frames:
            raise UserError(f"shift={n}: must be from 1 to {frames - 1}, below the batch's frames")
        encoded = nets(self.encoder, mel, lengths)
        if encoded.tokens.shape[1] != frames:
            raise UserError(
                f"network {self.encoder!r} gives {encoded.tokens.shape[1]} states for {frames} frames;"
                " APC needs one per frame (stride=1)"
            )
        mel = zero_beyond(mel, within(lengths, frames)).astype(jnp.float32)
        target, there = mel[:, n:], within(lengths - n, frames - n)
        predicted = nets(self.head, encoded.tokens[:, :-n]).astype(jnp.float32)
        if predicted.shape != target.shape:
            raise UserError(
                f"network {self.head!r} gives {predicted.shape[-1]} bands, mel has {mel.shape[-1]}"
            )
        total, count = counted(jnp.abs(target - predicted), there[..., None])
        metrics = {
            # what repeating the last frame would cost: a prediction is worth something below it
            "copy_error": counted(jnp.abs(target - mel[:, :-n]), there[..., None]),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)
