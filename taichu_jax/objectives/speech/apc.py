"""Autoregressive predictive coding: APC (arXiv 1904.03240; journal form 1910.12607).

    L = 1 / (T' M) sum_t sum_m | x_{t+n, m} - y_{t, m} |,    y_t = head(h(x_1 .. x_t))

A network that has seen the past only predicts the frame n steps ahead. The sum runs over the frames
t whose target t + n exists; the paper writes the sum, the authors' code takes the mean as here.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second; `mel_lengths` int32 [B], in frames.
Networks: `encoder`, one state per frame and blind to the future: `RecurrentEncoder`, or `SpeechEncoder`
with stride=1 and causal=True; `head`, from states to M bands.
Defaults: n = 5 from the authors' code (iamyuanchung/VQ-APC) and s3prl; the papers try 1 to 20.
Checked against: a NumPy loop over frames, and no prediction depends on a later frame, with each of GRU,
LSTM and causal transformer; the recurrent layers against NumPy loops over time; model and loss of s3prl
0.4.18 (which counts padding: without any), and with PyTorch's LSTM for its GRU, with the same weights:
hidden states, predictions, loss, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.shifted import shifted_l1


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
        encoded = nets(self.encoder, mel, lengths)
        predicted = nets(self.head, encoded.tokens)
        total, copying, count = shifted_l1(predicted, mel, lengths, self.shift)
        metrics = {
            "copy_error": (copying, count),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)
