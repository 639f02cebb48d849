"""wav2vec over a codebook: vq-wav2vec (arXiv 1910.05453).

    L = L_wav2vec(q) + a L_q + b L_d
    L_q = mean_t ( ||sg(z_t) - q_t||^2 + g ||z_t - sg(q_t)||^2 ) / D      nearest entry (k-means) only
    L_d = (G V - sum_g exp(H(p_g))) / (G V)

q_t are the latents with every group of channels replaced by a codebook's entry. They take the
latents' place in wav2vec's loss (wav2vec.py has the equation and its conventions): the contexts have
read entries only, targets and negatives are entries. p_g is the softmax of the quantiser's scores,
averaged over all steps of the batch; L_d is off in the paper and in the authors' recipes.

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples.
Networks: `encoder` with the methods features, quantise and contextualise (`WaveContextEncoder` with
context='convolution' and a quantiser: `ProductQuantiser` with a hidden layer, or `KmeansQuantiser`,
which holds g and D); `head`, from states to the predictions of all steps, steps times the width of an
entry of all groups (`StepHead`).
Defaults: 8 steps (the authors' recipe in fairseq has 12) and 10 negatives from the paper; a = 1 and
the Gumbel temperature's factor from the recipe, which falls from 2 to 0.5 step by step, where the
paper has a straight line over the first 70 % of the training. The paper writes L_q without 1 / D:
that is a = D.
Checked against: NumPy loops over states, steps and negatives given the same draws, for both
quantisers; the nearest entry and its gradients in NumPy.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.codebooks import code_shares, diversity, mean_probabilities
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Exponential, Schedule, value_at
from taichu_jax.ops.steps_ahead import binary_losses, step_scores

FAIRSEQ_GUMBEL = Exponential(start=2.0, rate=0.999995, floor=0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQWav2Vec(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      steps: how many steps are predicted.
      first: how far ahead the first of them lies.
      negatives: how many are drawn for every target.
      negative_weight: factor on the mean over negatives; None for their number.
      commitment, diversity: a and b.
      gumbel: temperature of the quantiser's softmax; a k-means quantiser has none.
    """

    encoder: str = "speech"
    head: str = "vq_wav2vec_head"
    steps: int = 8
    first: int = 1
    negatives: int = 10
    negative_weight: float | None = None
    commitment: float = 1.0
    diversity: float = 0.0
    gumbel: float | Schedule = FAIRSEQ_GUMBEL

    def loss(self, nets, batch, memory, rng):
        lengths = batch["audio_lengths"]
        latents, real = nets(self.encoder, batch["audio"], lengths, method="features")
        temperature = value_at(self.gumbel, nets.step)
        codes = nets(
            self.encoder, latents, fold_name(rng, "gumbel"), temperature, method="quantise"
        )
        context = nets(self.encoder, codes.vectors, real, method="contextualise").tokens
        scores = step_scores(
            fold_name(rng, "negatives"),
            nets(self.head, context),
            codes.vectors,
            real,
            jnp.arange(len(lengths)),
            steps=self.steps,
            first=self.first,
            count=self.negatives,
        )
        total, count = counted(binary_losses(scores, self.negative_weight), scores.there)
        shares = mean_probabilities(codes.probabilities, real)
        uneven = diversity(shares)
        value = mean_of(total, count)
        value += jnp.where(real.any(), self.diversity * uneven, 0.0)
        one = jnp.ones(())
        metrics = {
            "contrastive": (total, count),
            "found": counted(scores.own > 0, scores.there),
            "fooled": counted(scores.others > 0, scores.there[..., None]),
            "diversity": (uneven, one),
            "code_perplexity": perplexity(code_shares(codes.indices, real, shares.shape[-1])),
            "probability_perplexity": perplexity(shares),
            "latent_std": feature_std(latents, real),
            "feature_std": feature_std(context, real),
        }
        if codes.penalty is None:
            metrics["gumbel_temperature"] = (temperature, one)
        else:
            metrics["commitment"] = counted(codes.penalty, real)
            value += self.commitment * mean_of(*metrics["commitment"])
        return Loss(value, metrics)
