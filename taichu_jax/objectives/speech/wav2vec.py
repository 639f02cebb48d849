"""The next latents, told from distractors one by one: wav2vec (arXiv 1904.05862).

    L = - mean_{t,k} ( log sigmoid(z_{t+k}^T h_k(c_t)) + l E_{z in Q} log sigmoid(-z^T h_k(c_t)) )

z are the latents of strided convolutions, c_t the state of causal convolutions over z_1 .. z_t,
h_k(c) = W_k c + b_k. Q are `negatives` latents of the same utterance, drawn with replacement, never
z_{t+k} itself. k runs from `first` over `steps` steps, t over all steps whose target exists; an
utterance with one latent is left out. The paper sums over k, the authors' code (fairseq) divides by
all positives as here.

The paper starts at k = 1, where the window of a target overlaps with what the state has heard; the
code starts where it does not, first=3 for the default encoder (its option offset='auto').

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; or, with input='mel', `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames.
Networks: `encoder` with the methods features and contextualise, blind to the future
(`WaveContextEncoder` with context='convolution', whose docstring says what differs from the paper's;
`SpeechEncoder` with causal=True for mel); `head`, from states to the predictions of all steps, steps
times the width of a latent (`StepHead`).
Defaults: 12 steps, 10 negatives and l = their number from the paper (its code also has l = 1, as
balanced_classes).
Checked against: NumPy loops over states, steps and negatives given the same draw; no state depends on
a later sample.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.steps_ahead import binary_losses, step_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      input: the field that is read, 'audio' or 'mel'.
      steps: how many steps are predicted.
      first: how far ahead the first of them lies.
      negatives: how many are drawn for every target.
      negative_weight: l; None for the number of negatives.
    """

    encoder: str = "speech"
    head: str = "wav2vec_head"
    input: str = "audio"
    steps: int = 12
    first: int = 1
    negatives: int = 10
    negative_weight: float | None = None

    def loss(self, nets, batch, memory, rng):
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        latents, real = nets(self.encoder, field, lengths, method="features")
        context = nets(self.encoder, latents, real, method="contextualise").tokens
        scores = step_scores(
            fold_name(rng, "negatives"),
            nets(self.head, context),
            latents,
            real,
            jnp.arange(len(lengths)),
            steps=self.steps,
            first=self.first,
            count=self.negatives,
        )
        total, count = counted(binary_losses(scores, self.negative_weight), scores.there)
        metrics = {
            "found": counted(scores.own > 0, scores.there),
            "fooled": counted(scores.others > 0, scores.there[..., None]),
            "latent_std": feature_std(latents, real),
            "feature_std": feature_std(context, real),
        }
        return Loss(mean_of(total, count), metrics)
