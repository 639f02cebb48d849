"""A frame from its neighbours, all at once: non-autoregressive predictive coding, NPC (arXiv 2011.00406).

    L = 1 / (T M) sum_t sum_m | x_{t, m} - y_{t, m} |,    y_t = head(q(h_t))

h_t sees the R = 23 frames around t but for the 5 at the centre, the frame itself among them; q replaces
each of G groups of its channels by an entry of a codebook, drawn by the Gumbel softmax. No state waits
for another one. The sum runs over all real frames, those near the ends too, where zeros stand for what is
missing. The paper writes the sum; the authors' code takes the mean over bands and real frames, as here.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second; `mel_lengths` int32 [B], in frames.
Networks: `encoder`, one state per frame and blind to it (`LocalContextEncoder`); `quantiser`
(`GroupQuantiser`, 4 groups of 64 entries, 128 wide); `head`, from its vectors to M bands.
Defaults: tau = 1 from the authors' code (Alexander-H-Liu/NPC) and s3prl.
Checked against: a NumPy loop over frames given the same draws; the encoder against NumPy loops over time
and offsets; the prediction at t depends on every frame within R but for the hidden ones, and on no other;
model and loss of s3prl 0.4.18, its batch norms in eval mode or replaced by layer norms, with the same
weights and noise: states of every block, predictions, loss, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.lengths import zero_beyond
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Schedule, value_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonAutoregressivePredictiveCoding(Objective):
    """See the module's docstring.

    Attributes:
      encoder, quantiser, head: the networks' names.
      gumbel: temperature of the quantiser's softmax, tau.
    """

    encoder: str = "speech"
    quantiser: str = "quantiser"
    head: str = "npc_head"
    gumbel: float | Schedule = 1.0

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        encoded = nets(self.encoder, mel, lengths)
        temperature = value_at(self.gumbel, nets.step)
        codes = nets(self.quantiser, encoded.tokens, fold_name(rng, "gumbel"), temperature)
        if codes.penalty is not None:
            raise UserError(
                f"network {self.quantiser!r} learns by a penalty, which NPC does not add; it needs"
                " a quantiser with a Gumbel softmax"
            )
        predicted = nets(self.head, codes.vectors).astype(jnp.float32)
        if predicted.shape != mel.shape:
            raise UserError(
                f"{predicted.shape[1]} predictions of {predicted.shape[2]} bands for {mel.shape[1]} mel"
                f" frames of {mel.shape[2]}: network {self.encoder!r} must give one state per frame,"
                f" {self.head!r} one number per band"
            )
        target = zero_beyond(mel, encoded.mask).astype(jnp.float32)
        total, count = counted(jnp.abs(target - predicted), encoded.mask[..., None])
        shares = code_shares(codes.indices, encoded.mask, codes.probabilities.shape[-1])
        metrics = {
            "code_perplexity": perplexity(shares),
            "feature_std": feature_std(encoded.layers[-1], encoded.mask),
            "masked_feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)
