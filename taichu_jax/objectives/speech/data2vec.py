"""A teacher's contextual states, predicted from masked speech: data2vec (arXiv 2202.03555).

    L = 1/|M| sum_{t in M} s sum_d l(p_{t,d} - y_{t,d}),    y = 1/K sum_{last K blocks} norm(a^k)

a^k are the states behind block k of the teacher, which sees all of the speech; p = head(states of the
student, from which the spans M are hidden). l is the square, or with beta > 0 the smooth L1,
d^2 / (2 beta) for |d| < beta and |d| - beta / 2 beyond. norm takes every channel to mean 0 and variance
1 over the real steps of the utterance. s = 1 / sqrt(D).

The teacher follows the student's transformer; the front end is shared, and its latents are computed
once (the paper: 'more efficient and slightly more accurate'). Normalisation, projection and positions
behind the latents belong to the teacher here, where the authors share them too; and a^k are the
block's outputs, where the authors take the feed-forward layer's before the residual sum.

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; or, with input='mel', `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames.
Networks: `encoder` with the methods features and contextualise (`WaveEncoder`; `SpeechEncoder` for mel),
also as teacher; `head`, linear and as wide as the encoder. The authors' encoder is
WaveEncoder(norm='layer', positions=19, position_layers=5) but for its post-norm blocks.
Defaults: K = 8, square, 0.65 and 10, decay 0.999 to 0.9999 over 30,000 steps from the paper, section 4.2,
and fairseq's base configuration for speech (s, one span at least, normalisation over time).
Checked against: NumPy loops over examples and channels given the same draw, with the teacher's weights
apart from the student's; two Data2VecAudioModels of transformers 5.23, their post-norm blocks replaced by
its Wav2Vec2's pre-norm ones, under the loss in PyTorch, with the same weights and spans: both networks'
hidden states, loss, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax.lax import stop_gradient

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, Teacher, counted, mean_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.normalise import over_features, over_time
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Linear
from taichu_jax.ops.spans import span_mask

PAPER_TEACHER = Teacher(nets=("speech",), decay=Linear(start=0.999, end=0.9999, steps=30_000))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data2VecAudio(Objective):
    """See the module's docstring.

    Attributes:
      teacher: names the encoder, with its decay.
      encoder, head: the networks' names.
      input: the field that is read, 'audio' or 'mel'.
      average: K, how many of the last blocks make the target.
      norm: 'instance' over time, or 'layer' over channels.
      beta: 0 for the square, else where the smooth L1 turns linear.
      scale: s; None for 1 / sqrt(D).
      rate, span: density and length of the masked spans (ops/spans.py), in the encoder's steps.
    """

    teacher: Teacher = PAPER_TEACHER
    encoder: str = "speech"
    head: str = "data2vec_head"
    input: str = "audio"
    average: int = 8
    norm: str = "instance"
    beta: float = 0.0
    scale: float | None = None
    rate: float = 0.65
    span: int = 10

    def loss(self, nets, batch, memory, rng):
        if self.norm not in ("instance", "layer"):
            raise UserError(f"norm={self.norm!r}: valid: instance, layer")
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        latents, real = nets(self.encoder, field, lengths, method="features")
        whole = nets.teacher(self.encoder, stop_gradient(latents), real, method="contextualise")
        blocks = whole.layers[1:]  # the first is the input of the stack
        if not 1 <= self.average <= len(blocks):
            raise UserError(
                f"average={self.average}: must be from 1 to {len(blocks)}, the blocks of network "
                f"{self.encoder!r}"
            )
        normal = [
            over_time(block, real) if self.norm == "instance" else over_features(block)
            for block in blocks[-self.average :]
        ]
        target = stop_gradient(sum(normal) / self.average)

        masked = span_mask(
            fold_name(rng, "spans"),
            real.sum(-1),
            real.shape[1],
            rate=self.rate,
            span=self.span,
            at_least=1,
        )
        states = nets(self.encoder, latents, real, masked, method="contextualise").tokens
        predicted = nets(self.head, states).astype(jnp.float32)
        if predicted.shape != target.shape:
            raise UserError(
                f"network {self.head!r} gives {predicted.shape[-1]} features, network "
                f"{self.encoder!r} has {target.shape[-1]}"
            )
        distance = predicted - target
        if self.beta:
            size = jnp.abs(distance)
            quadratic = 0.5 * jnp.square(distance) / self.beta
            errors = jnp.where(size < self.beta, quadratic, size - 0.5 * self.beta)
        else:
            errors = jnp.square(distance)
        scale = target.shape[-1] ** -0.5 if self.scale is None else self.scale
        total, count = counted(errors.sum(-1) * scale, masked)
        metrics = {
            "target_std": feature_std(target, masked),
            "prediction_std": feature_std(predicted, masked),
            "feature_std": feature_std(states, masked),
            "masked_share": counted(masked, real),
        }
        return Loss(mean_of(total, count), metrics)
