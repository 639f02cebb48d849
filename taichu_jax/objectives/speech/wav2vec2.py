"""Masked speech, contrasted with quantised targets: wav2vec 2.0 (arXiv 2006.11477).

    L   = L_m + a L_d + b L_f
    L_m = - 1/|M| sum_{t in M} log  exp(cos(c_t, q_t) / k) / sum_{q in {q_t} + Q_t} exp(cos(c_t, q) / k)
    L_d = (G V - sum_g exp(H(p_g))) / (G V)
    L_f = mean z^2

z are the front end's latents, q their quantised form (unmasked), c the states of the masked speech. M
are the hidden steps, Q_t 100 of the other hidden steps of the same utterance, drawn with replacement;
one whose entries are all those of q_t is no negative and is left out. p_g is the softmax of the
quantiser's scores, without noise, averaged over all hidden steps of the batch. Spans: ops/spans.py,
where the conventions for their density are told apart; rate is the paper's p times M, 0.065 * 10.

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; or, with input='mel', `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames.
Networks: `encoder` with the methods features, normalise and contextualise (`WaveEncoder`;
`SpeechEncoder` for mel); `quantiser` (`ProductQuantiser`); `head` and `target_head`, from c and q
into the space where they are compared (256 wide in the paper, linear).
Defaults: rate, span, k, negatives, a and the Gumbel temperature from the paper, section 4.2; b = 10,
at least two spans and the rule on equal codes from the authors' code (fairseq, base configuration).
layer=n contrasts the states behind the n-th block, each brought to mean 0 and variance 1, and leaves
the blocks above to another objective: the contrastive half of w2v-BERT (arXiv 2108.06209;
w2v_bert.py).
Checked against: NumPy loops over steps and negatives given the same draws; exact span statistics;
Wav2Vec2ForPreTraining of transformers 5.23 (pre-norm; layer norm, and group norm without padding, which
it counts) with the same weights and draws: hidden states, both losses, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.codebooks import code_shares, diversity, mean_probabilities
from taichu_jax.ops.draws import draw_key
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.negatives import sample_others
from taichu_jax.ops.normalise import over_features, unit
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Exponential, Schedule, value_at
from taichu_jax.ops.spans import span_mask

PAPER_GUMBEL = Exponential(start=2.0, rate=0.999995, floor=0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec2(Objective):
    """See the module's docstring.

    Attributes:
      encoder, quantiser, head, target_head: the networks' names.
      input: the field that is read, 'audio' or 'mel'.
      rate, span: density and length of the masked spans (ops/spans.py), in the encoder's steps.
      negatives: how many are drawn for every hidden step.
      temperature: k.
      diversity, penalty: a and b.
      gumbel: temperature of the quantiser's softmax.
      layer: the block whose states are contrasted, from 1; None for the encoder's tokens.
      draw: the name of a draw of spans and noise that is shared with another objective (ops/draws.py);
        empty for one of its own.
    """

    encoder: str = "speech"
    quantiser: str = "quantiser"
    head: str = "wav2vec2_head"
    target_head: str = "wav2vec2_target_head"
    input: str = "audio"
    rate: float = 0.65
    span: int = 10
    negatives: int = 100
    temperature: float = 0.1
    diversity: float = 0.1
    penalty: float = 10.0
    gumbel: float | Schedule = PAPER_GUMBEL
    layer: int | None = None
    draw: str = ""

    def loss(self, nets, batch, memory, rng):
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        key = draw_key(rng, nets.step, self.draw)
        latents, real = nets(self.encoder, field, lengths, method="features")
        masked = span_mask(
            fold_name(key, "spans"), real.sum(-1), real.shape[1], rate=self.rate, span=self.span
        )
        encoded = nets(self.encoder, latents, real, masked, method="contextualise")
        context = self._contrasted(encoded)
        temperature = value_at(self.gumbel, nets.step)
        targets = nets(
            self.quantiser,
            nets(self.encoder, latents, method="normalise"),
            fold_name(key, "gumbel"),
            temperature,
        )

        # All similarities within an utterance are one product; negatives are picked from its columns.
        c = unit(nets(self.head, context))
        q = unit(nets(self.target_head, targets.vectors))
        similar = jnp.einsum("bnd,bmd->bnm", c, q, preferred_element_type=jnp.float32)
        codes = targets.indices
        same = (codes[:, :, None] == codes[:, None]).all(-1)
        similar = jnp.where(same, jnp.finfo(jnp.float32).min, similar / self.temperature)
        others, usable = sample_others(fold_name(rng, "negatives"), masked, self.negatives)
        own = (c * q).sum(-1, keepdims=True) / self.temperature
        logits = jnp.concatenate([own, jnp.take_along_axis(similar, others, axis=-1)], axis=-1)
        total, right, count = cross_entropy(logits, jnp.zeros(usable.shape, jnp.int32), usable)

        shares = mean_probabilities(targets.probabilities, masked)
        likeliest = code_shares(targets.probabilities.argmax(-1), masked, shares.shape[-1])
        uneven = diversity(shares)
        energy = mean_of(*counted(jnp.square(latents.astype(jnp.float32)), real[..., None]))

        value = mean_of(total, count)
        value += jnp.where(masked.any(), self.diversity * uneven, 0.0) + self.penalty * energy
        one = jnp.ones(())
        metrics = {
            "contrastive": (total, count),
            "accuracy": (right, count),
            "diversity": (uneven, one),
            "code_perplexity": perplexity(likeliest),
            "probability_perplexity": perplexity(shares),
            "latent_energy": (energy, one),
            "gumbel_temperature": (temperature, one),
            "masked_share": counted(masked, real),
            "feature_std": feature_std(context, masked),
        }
        return Loss(value, metrics)

    def _contrasted(self, encoded):
        if self.layer is None:
            return encoded.tokens
        blocks = len(encoded.layers) - 1  # the first is the input of the stack
        if not 1 <= self.layer <= blocks:
            raise UserError(
                f"layer={self.layer}: must be from 1 to {blocks}, the blocks of network {self.encoder!r}"
            )
        return over_features(encoded.layers[self.layer]).astype(encoded.tokens.dtype)
