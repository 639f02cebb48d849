"""Units of masked speech, found offline by clustering: HuBERT (arXiv 2106.07447).

    L = a L_m + (1 - a) L_u,    L_m = - sum_{t in M} log p(z_t | speech without M)
    p(c) = exp(cos(A o_t, e_c) / k) / sum_c' exp(cos(A o_t, e_c') / k)

M are the hidden spans, L_u is the same sum over the visible steps, o_t the states, A `head`, e_c the
rows of `codebook`, z_t the unit at the token's place: with units at 100 Hz and tokens at 50 Hz every
second one (as fairseq). The sum is divided by the number of steps whose weight is not 0. To it comes,
as in the authors' code, b times the mean square of the front end's latents.

scores='linear' gives plain logits instead of cosines, with as many features of `head` as there are
units and no `codebook`: simpler, and common in reimplementations; neither paper nor authors have it.

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; or, with input='mel', `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames. `units`
int32 [B, K] at `unit_rate` per second, -1 where there is none: `Recordings(units=DIR)`, written by
launch/cluster.py.
Networks: `encoder` with the methods features and contextualise (`WaveEncoder`; `SpeechEncoder` for
mel); `head`, linear, 256 wide in the paper; `codebook` (`Codebook`).
Defaults: k = 0.1, a = 1, rate 0.8 and span 10 (8 % of the steps are starts) from the paper, sections
III-B and IV-C; b = 10 and at least two spans from fairseq's base configuration. On log-mel frames use
penalty=0: their front end is no stack of convolutions that could grow without bound.
Checked against: NumPy loops over steps and codes given the same spans; units that tell their time;
HubertModel of transformers 5.23 (pre-norm, layer norm) under the formulas above in PyTorch, with the same
weights and spans: hidden states, losses, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.ops.unit_prediction import code_scores, unit_losses, units_at_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuBERT(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head, codebook: the networks' names.
      input: the field that is read, 'audio' or 'mel'.
      unit_rate: of the field `units`, per second; the stream's.
      scores: 'cosine' or 'linear'.
      temperature: k.
      rate, span: density and length of the masked spans (ops/spans.py), in the encoder's steps.
      on_masked, on_unmasked: a and 1 - a; the two need not add up to 1.
      penalty: b.
    """

    encoder: str = "speech"
    head: str = "hubert_head"
    codebook: str = "hubert_codebook"
    input: str = "audio"
    unit_rate: float = 100.0
    scores: str = "cosine"
    temperature: float = 0.1
    rate: float = 0.8
    span: int = 10
    on_masked: float = 1.0
    on_unmasked: float = 0.0
    penalty: float = 10.0

    def loss(self, nets, batch, memory, rng):
        if self.scores not in ("cosine", "linear"):
            raise UserError(f"scores={self.scores!r}; {choices(self.scores, ('cosine', 'linear'))}")
        if not (self.on_masked or self.on_unmasked):
            raise UserError("on_masked and on_unmasked are both 0: nothing would be learnt")
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        latents, real = nets(self.encoder, field, lengths, method="features")
        masked = span_mask(
            fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=self.rate, span=self.span
        )
        encoded = nets(self.encoder, latents, real, masked, method="contextualise")
        labels = units_at_tokens(
            batch["units"], real.shape[1], unit_rate=self.unit_rate, token_rate=encoded.rate
        )
        scores = nets(self.head, encoded.tokens)
        if self.scores == "cosine":
            scores = code_scores(scores, nets(self.codebook), self.temperature)
        total, count, metrics = unit_losses(
            scores, labels, masked, real, on_masked=self.on_masked, on_unmasked=self.on_unmasked
        )
        value = mean_of(total, count)
        energy = counted(jnp.square(latents.astype(jnp.float32)), real[..., None])
        if self.penalty:
            value += self.penalty * mean_of(*energy)
        metrics |= {"latent_energy": energy, "feature_std": feature_std(encoded.tokens, masked)}
        return Loss(value, metrics)
