"""Masked speech, reconstructed through a codebook: DeCoAR 2.0 (arXiv 2012.06659).

    L   = 1 / (|M| B) sum_{t in M} | x_t - f(q(c_t)) |_1  +  a L_d
    L_d = (G V - sum_g exp(H(p_g))) / (G V)

c are the states of a transformer from which the frames M are hidden; q replaces a state by one entry
from each of G codebooks, drawn by the Gumbel softmax; f is a feed-forward network. Unlike wav2vec 2.0,
which quantises its targets, the states themselves pass the quantiser here. p_g is the softmax of its
scores, without noise, averaged over all hidden steps of the batch. B is the number of mel bands.

A token of the encoder may hold several frames (stride); all of them are then hidden and reconstructed
together. The paper has one frame per token.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second; `mel_lengths` int32 [B], in frames.
Networks: `encoder` with the methods features and contextualise (`SpeechEncoder`); `quantiser`
(`ProductQuantiser`, 2 x 320 entries); `head`, from its vectors to stride * M numbers.
Defaults: span = 20 (the slice that is hidden), 2 x 320 entries and a = 0.1 from the paper. Its share of
hidden frames could not be checked (the public code has the encoder only): rate and the Gumbel temperature
are those of wav2vec 2.0, whose quantiser it takes.
Checked against: NumPy loops over frames and groups given the same draws; hidden frames leave no trace in
the prediction.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.codebooks import code_shares, diversity, mean_probabilities
from taichu_jax.ops.frames import stack_frames
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Exponential, Schedule, value_at
from taichu_jax.ops.spans import span_mask

WAV2VEC2_GUMBEL = Exponential(start=2.0, rate=0.999995, floor=0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeCoAR2(Objective):
    """See the module's docstring.

    Attributes:
      encoder, quantiser, head: the networks' names.
      rate, span: density and length of the masked spans (ops/spans.py), in the encoder's tokens.
      diversity: a.
      gumbel: temperature of the quantiser's softmax.
    """

    encoder: str = "speech"
    quantiser: str = "quantiser"
    head: str = "decoar2_head"
    rate: float = 0.65
    span: int = 20
    diversity: float = 0.1
    gumbel: float | Schedule = WAV2VEC2_GUMBEL

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        latents, real = nets(self.encoder, mel, lengths, method="features")
        masked = span_mask(
            fold_name(rng, "spans"),
            real.sum(-1),
            real.shape[1],
            rate=self.rate,
            span=self.span,
            at_least=1,
        )
        states = nets(self.encoder, latents, real, masked, method="contextualise").tokens
        temperature = value_at(self.gumbel, nets.step)
        codes = nets(self.quantiser, states, fold_name(rng, "gumbel"), temperature)
        if codes.penalty is not None:
            raise UserError(
                f"network {self.quantiser!r} learns by a penalty, which DeCoAR 2.0 does not add; it needs"
                " a quantiser with a Gumbel softmax"
            )
        predicted = nets(self.head, codes.vectors).astype(jnp.float32)

        bands = mel.shape[-1]
        stride = max(1, predicted.shape[-1] // bands)
        target = stack_frames(mel, lengths, stride).astype(jnp.float32)
        if predicted.shape != target.shape:
            raise UserError(
                f"network {self.encoder!r} gives {real.shape[1]} tokens for {mel.shape[1]} frames,"
                f" network {self.head!r} {predicted.shape[-1]} numbers per token; it must give the"
                f" {bands} bands of every frame of a token"
            )
        # Only the last token of an utterance may hold frames behind its end, and no span hides that one.
        total, count = counted(jnp.abs(target - predicted), masked[..., None])

        shares = mean_probabilities(codes.probabilities, masked)
        chosen = code_shares(codes.indices, masked, shares.shape[-1])
        uneven = diversity(shares)
        value = mean_of(total, count)
        value += jnp.where(masked.any(), self.diversity * uneven, 0.0)
        one = jnp.ones(())
        metrics = {
            "reconstruction": (total, count),
            "diversity": (uneven, one),
            "code_perplexity": perplexity(chosen),
            "probability_perplexity": perplexity(shares),
            "gumbel_temperature": (temperature, one),
            "masked_share": counted(masked, real),
            "feature_std": feature_std(states, masked),
        }
        return Loss(value, metrics)
