"""The codes of hidden speech, predicted: the masked half of w2v-BERT (arXiv 2108.06209).

    L_m = - 1 / (G |M|) sum_{t in M} sum_g log P_g(i_{t,g} | speech with the steps M hidden)

i_t are the ids that a quantiser gives the unmasked latents, M the hidden steps, P_g = softmax of
`head` on the states of the encoder's last block. No gradient passes through the ids.

w2v-BERT is the plain sum L_w + a L_d + L_m of two objectives: `Wav2Vec2` with layer=n contrasts the
states behind the n-th block of the same encoder and trains the quantiser, this one reads the blocks
above. Both must name the same `draw`: then both hide the same steps and draw the same ids, and ask
the encoder the same question. The objectives share nothing else. (An encoder with dropout draws it
once for each.)

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; or, with input='mel', `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames.
Networks: `encoder` with the methods features, normalise and contextualise (`SpeechEncoder` for mel,
as in the paper; `WaveEncoder`); `quantiser` (`ProductQuantiser` with groups=1 and 1024 codes,
`KmeansQuantiser`); `head`, from states to groups * codes scores.
Defaults: rate and span of wav2vec 2.0, as in the paper; the weights of both objectives are 1 there.
Its ids come from one codebook of 1024; several codebooks are predicted one by one, and the mean
taken. The paper's encoder has Conformer blocks and fills hidden steps with random vectors; here they
are a transformer's blocks and one learned vector.
Checked against: NumPy loops over steps and groups given the same draws; together with `Wav2Vec2`, the
same steps and the same ids.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.draws import draw_key
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedCodes(Objective):
    """See the module's docstring.

    Attributes:
      encoder, quantiser, head: the networks' names.
      input: the field that is read, 'audio' or 'mel'.
      rate, span: density and length of the masked spans (ops/spans.py), in the encoder's steps.
      draw: the name of the draw that is shared with another objective; empty for one of its own.
      commitment: weight of the quantiser's own loss (`KmeansQuantiser`) over all real steps; 0 where
        another objective trains the quantiser.
    """

    encoder: str = "speech"
    quantiser: str = "quantiser"
    head: str = "codes_head"
    input: str = "mel"
    rate: float = 0.65
    span: int = 10
    draw: str = ""
    commitment: float = 0.0

    def loss(self, nets, batch, memory, rng):
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        key = draw_key(rng, nets.step, self.draw)
        latents, real = nets(self.encoder, field, lengths, method="features")
        masked = span_mask(
            fold_name(key, "spans"), real.sum(-1), real.shape[1], rate=self.rate, span=self.span
        )
        states = nets(self.encoder, latents, real, masked, method="contextualise").tokens
        codes = nets(
            self.quantiser,
            nets(self.encoder, latents, method="normalise"),
            fold_name(key, "gumbel"),
        )
        groups, entries = codes.probabilities.shape[-2:]
        scores = nets(self.head, states)
        if scores.shape[-1] != groups * entries:
            raise UserError(
                f"network {self.head!r} gives {scores.shape[-1]} scores; network {self.quantiser!r} has "
                f"{groups} x {entries} codes"
            )
        scores = scores.reshape(*masked.shape, groups, entries)
        where = jnp.broadcast_to(masked[..., None], scores.shape[:-1])
        total, right, count = cross_entropy(scores, jax.lax.stop_gradient(codes.indices), where)
        value = mean_of(total, count)
        metrics = {
            "accuracy": (right, count),
            "code_perplexity": perplexity(code_shares(codes.indices, masked, entries)),
            "masked_share": counted(masked, real),
            "feature_std": feature_std(states, masked),
        }
        if self.commitment:
            if codes.penalty is None:
                raise UserError(
                    f"commitment={self.commitment}: network {self.quantiser!r} has no loss of its own"
                )
            metrics["commitment"] = counted(codes.penalty, real)
            value += self.commitment * mean_of(*metrics["commitment"])
        return Loss(value, metrics)
