"""A vocoder and its adversaries in one loss: HiFi-GAN (arXiv 2010.05646, equations 1 to 7).

    L_D = sum_k mean (D_k(x) - 1)^2 + mean D_k(G(s))^2
    L_G = a sum_k mean (D_k(G(s)) - 1)^2 + b sum_k sum_i mean |D_k^i(x) - D_k^i(G(s))|
          + c mean |mel(x) - mel(G(s))|

The objective is L_D + L_G over a random segment of every recording. In L_D the made samples get no
gradient, in L_G the discriminators get none, so the sum trains each by its own loss; both see the
weights before the step, where the authors update the discriminators first. D^i are the outputs of every
layer, the last included (the authors' code). Spectrograms are those of `data/audio.py`, computed from
the segment alone; s are frames of the whole recording's.

mel is ln of power here, of magnitude in the authors' code: the same weight c counts a difference about
twice. A recording that is shorter than the segment is followed by silence, as theirs.

Batch: `audio` float [B, T], samples in [-1, 1] (a stream with audio='waveform', normalise=False), and
`audio_lengths` int32 [B]. Rows of length 0 do not count.
Networks: `generator` (`HifiGanGenerator`), `discriminators` (`HifiGanDiscriminators`). The paper's
optimiser is AdamW of rate 2e-4, betas 0.8 and 0.99, without clipping, which would let one side's
gradient shrink the other's.
Defaults: a = 1, b = 2, c = 45; 51 frames are 8,160 samples, where the paper has 8,192.
Checked against: NumPy loops over discriminators, layers and samples; the gradients of both sides
against those of their own loss; the spectrogram against data/audio.py.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Metric, Objective, mean_of
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.log_mel import SILENCE, log_mel
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Schedule, value_at
from taichu_jax.ops.segments import random_starts, segment
from taichu_jax.ops.speech_frames import HOP


@dataclasses.dataclass(frozen=True, kw_only=True)
class HifiGan(Objective):
    """See the module's docstring.

    Attributes:
      generator, discriminators: the networks' names.
      frames: of a segment.
      bands: of the spectrograms.
      adversarial, feature_matching, mel: a, b and c.
    """

    generator: str = "vocoder"
    discriminators: str = "discriminators"
    frames: int = 51
    bands: int = 80
    adversarial: float | Schedule = 1.0
    feature_matching: float | Schedule = 2.0
    mel: float = 45.0

    def loss(self, nets, batch, memory, rng):
        lengths = batch["audio_lengths"]
        audio = zero_beyond(
            batch["audio"].astype(jnp.float32), within(lengths, batch["audio"].shape[1])
        )
        first = random_starts(fold_name(rng, "start"), lengths // HOP, self.frames)
        samples = self.frames * HOP
        real = segment(audio, first * HOP, samples)
        given = segment(log_mel(audio, lengths, self.bands), first, self.frames + 1, beyond=SILENCE)
        made = nets(self.generator, given).astype(jnp.float32)

        rows = lengths > 0
        of_real = nets(self.discriminators, real)
        of_made = nets(self.discriminators, jax.lax.stop_gradient(made))
        seen = nets.frozen(self.discriminators, made)

        whole = jnp.full(len(lengths), samples)
        mel_error = log_mel(real, whole, self.bands) - log_mel(made, whole, self.bands)
        mel = _over_rows(jnp.abs(mel_error), rows)
        caught = sum(
            _mean(jnp.square(r.score - 1), rows) + _mean(jnp.square(f.score), rows)
            for r, f in zip(_float(of_real), _float(of_made), strict=True)
        )
        fooled = sum(_mean(jnp.square(f.score - 1), rows) for f in _float(seen))
        matching = sum(
            _mean(jnp.abs(jax.lax.stop_gradient(x) - y), rows)
            for r, f in zip(_float(of_real), _float(seen), strict=True)
            for x, y in zip(r.features, f.features, strict=True)
        )
        value = (
            caught
            + value_at(self.adversarial, nets.step) * fooled
            + value_at(self.feature_matching, nets.step) * matching
            + self.mel * mean_of(*mel)
        )
        one = jnp.ones(())
        metrics = {
            "mel_error": mel,
            "discriminators": (caught, one),
            "adversarial": (fooled, one),
            "feature_matching": (matching, one),
            "score_of_real": (_average_score(of_real, rows), one),
            "score_of_made": (_average_score(of_made, rows), one),
        }
        return Loss(value, metrics)


def _over_rows(x: jax.Array, rows: jax.Array) -> Metric:
    """(sum, count) of x [B, ...] over the rows that count."""
    total = jnp.where(rows, x.reshape(len(x), -1).sum(-1), 0.0).sum()
    return total, rows.sum() * jnp.float32(x.size // len(x))


def _mean(x: jax.Array, rows: jax.Array) -> jax.Array:
    return mean_of(*_over_rows(x, rows))


def _float(judged):
    return jax.tree.map(lambda x: x.astype(jnp.float32), judged)


def _average_score(judged, rows: jax.Array) -> jax.Array:
    scores = [_mean(one.score.astype(jnp.float32), rows) for one in judged]
    return jnp.stack(scores).mean()
