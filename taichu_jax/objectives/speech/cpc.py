"""Contrastive predictive coding: CPC (arXiv 1807.03748), as modified in arXiv 2002.02848.

    L = - mean_{t,k} log  exp(s z_{t+k}^T W_k c_t) / sum_{z in {z_{t+k}} + Q} exp(s z^T W_k c_t)

z are the latents of strided convolutions, c_t the state of a network that has read z_1 .. z_t, Q the
negatives: `count` latents drawn with replacement from those of the same utterance, of all utterances
of the same voice, or of the whole batch, never z_{t+k} itself. k runs from `first` over `steps`
steps, t over all steps whose target exists; utterances without a negative are left out.

Both papers start at k = 1, though the windows of neighbouring latents overlap: with the default
encoder a state has heard part of the next two targets, and wholly new ones start at first=3.
Differences from the authors' code (facebookresearch/CPC_audio): it draws negatives once for a state
where this draws them for a target, does not keep the target out, and sums the losses of the steps k
where this takes the mean; its default W_k is a layer of a transformer, the papers' linear map is an
option there.

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; or, with input='mel', `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames; with
negatives='voice' the field that `voice` names, int32 [B].
Networks: `encoder` with the methods features and contextualise, blind to the future
(`WaveContextEncoder`; `SpeechEncoder` with causal=True for mel); `head`, from states to the
predictions of all steps, steps times the width of a latent (`StepHead` without bias: W_k).
Defaults: 12 steps from both papers; 128 negatives of the same speaker from arXiv 2002.02848 and its
code, which has s = 1 / D (scale=None); s = 1 is the papers'.
Checked against: NumPy loops over states, steps and negatives given the same draw; no state depends on
a later sample; negatives uniform over the group without the target.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.steps_ahead import step_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastivePredictiveCoding(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      input: the field that is read, 'audio' or 'mel'.
      steps: how many steps are predicted.
      first: how far ahead the first of them lies.
      negatives: where they come from, 'utterance', 'voice' or 'batch'.
      voice: the field that says who speaks.
      count: how many are drawn for every target.
      scale: s; None for 1 / D.
    """

    encoder: str = "speech"
    head: str = "cpc_head"
    input: str = "audio"
    steps: int = 12
    first: int = 1
    negatives: str = "voice"
    voice: str = "lang"
    count: int = 128
    scale: float | None = 1.0

    def loss(self, nets, batch, memory, rng):
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        if self.negatives == "voice":
            groups = batch[self.voice]
        elif self.negatives in ("utterance", "batch"):
            groups = jnp.arange(len(lengths)) * (self.negatives == "utterance")
        else:
            raise UserError(f"negatives={self.negatives!r}: valid: batch, utterance, voice")
        latents, real = nets(self.encoder, field, lengths, method="features")
        context = nets(self.encoder, latents, real, method="contextualise").tokens
        scores = step_scores(
            fold_name(rng, "negatives"),
            nets(self.head, context),
            latents,
            real,
            groups,
            steps=self.steps,
            first=self.first,
            count=self.count,
        )
        scale = 1 / latents.shape[-1] if self.scale is None else self.scale
        logits = scale * jnp.concatenate([scores.own[..., None], scores.others], axis=-1)
        labels = jnp.zeros(scores.own.shape, jnp.int32)
        total, right, count = cross_entropy(logits, labels, scores.there)

        def accuracy(step):
            return cross_entropy(logits[:, :, step], labels[:, :, step], scores.there[:, :, step])[
                1:
            ]

        metrics = {
            "accuracy": (right, count),
            "accuracy_first": accuracy(0),
            "accuracy_last": accuracy(-1),
            "latent_std": feature_std(latents, real),
            "feature_std": feature_std(context, real),
        }
        return Loss(mean_of(total, count), metrics)
