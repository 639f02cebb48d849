"""Autoregressive predictive coding through a quantiser: VQ-APC (arXiv 2005.08392).

    L = 1 / (T' M) sum_t sum_m | x_{t+n, m} - y_{t, m} |,    y_t = head(q(h(x_1 .. x_t)))

APC whose states pass a codebook: q replaces a state by one of V entries, drawn by the Gumbel softmax of
a linear map of the state; the gradient is straight-through, that of the softmax at temperature tau. How
many entries there are bounds what a state can tell. Outside training the likeliest entry is taken. The
sum runs over the frames t whose target t + n exists.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second; `mel_lengths` int32 [B], in frames.
Networks: `encoder` with the method quantise (`VQRecurrentEncoder`); `head`, from its output to M bands.
Defaults: n = 5 and tau = 0.5, without annealing, from the authors' code (iamyuanchung/VQ-APC) and s3prl.
Checked against: a NumPy loop over frames given the same draws; the quantiser and its gradient against
formulas in NumPy; no prediction depends on a later frame; perplexity against 2^H; model and loss of
s3prl 0.4.18 with the same weights and noise: hidden states, predictions, loss, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Schedule, value_at
from taichu_jax.ops.shifted import shifted_l1


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorQuantisedAPC(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      shift: how many frames ahead is predicted, n.
      gumbel: temperature of the quantiser's softmax, tau.
    """

    encoder: str = "speech"
    head: str = "vq_apc_head"
    shift: int = 5
    gumbel: float | Schedule = 0.5

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        temperature = value_at(self.gumbel, nets.step)
        encoded, output, codes = nets(
            self.encoder, mel, lengths, fold_name(rng, "gumbel"), temperature, method="quantise"
        )
        predicted = nets(self.head, output)
        total, copying, count = shifted_l1(predicted, mel, lengths, self.shift)
        shares = code_shares(codes.indices, encoded.mask, codes.probabilities.shape[-1])
        metrics = {
            "copy_error": (copying, count),
            "code_perplexity": perplexity(shares),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)
