"""A worker of PASE that regresses a description of speech (arXiv 1904.03416, 2001.09239).

    L = mean_{t, |k| <= K, c} (x_{t+k, c} - y_{t, k, c})^2,    y_t = head(h_t)

h are the encoder's states, one per 10 ms; x is what the worker describes, computed from the clean
speech, and y_t describes the 2 K + 1 frames around frame t. The worker of the waveform predicts the 160
samples of a frame, with |x - y| for the square. PASE sums several workers over one encoder: each is an
objective with its own `target` and `head`, and their weights are the sum's.

target         window  what                                                     columns
'wave'         -       the samples of the frame                                 160
'log_power'    400     10 log10 of the spectrum, `size` the transform's         size // 2 + 1
'mfcc'         400     cepstral coefficients, `size` of them                    size
'filter_bank'  400     logarithms of mel bands, `size` of them                  size
'gammatone'    400     logarithms of gammatone filters, `size` of them          size
'prosody'      320     ln F0, voicing, loudness, zero crossings                 4

(ops/speech_features.py, ops/prosody.py), followed by `slopes` derivatives over time. The long windows of
PASE+ are `window`: 512 for log_power, 1024 for filter_bank, 2048 for mfcc (size 20) and gammatone.

Every column but the samples is brought to mean 0 and variance 1 over the utterance's real frames; the
authors use statistics of their data set. So a loss of 1 is worth nothing. What lies beyond the
utterance's ends is left out of the mean; the authors regress zeros there. Their worker of the waveform
is a decoder of transposed convolutions, their heads' activations PReLU.

With `distorted` the encoder hears `distort(audio, lengths, nets.step)`: a draw that depends on the step
and not on the objective, so that all workers of a step share one distortion and one encoding.

Batch: `audio` float [B, T] samples at 16 kHz of zero mean and unit variance, `audio_lengths` int32 [B].
Networks: `encoder`, one state per 160 samples, with the method `distort` if `distorted` (`PaseEncoder`);
`head`, from states to (2 K + 1) times the columns.
Defaults: PASE's (K = 0, no slopes, 20 coefficients, 2048); PASE+ has K = 3, slopes = 2, 13 coefficients:
the authors' configurations (santi-pdp/pase, cfg/workers).
Checked against: a NumPy loop over frames, neighbours and columns for every kind of loss; the targets
against librosa, SciPy and closed forms (tests/ops).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops import speech_features
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.normalise import over_time
from taichu_jax.ops.prosody import prosody
from taichu_jax.ops.speech_frames import HOP, frame_count, windows

# target -> (function, its argument that `size` sets)
SPECTRAL = {
    "log_power": (speech_features.log_power, "transform"),
    "mfcc": (speech_features.mfcc, "order"),
    "filter_bank": (speech_features.filter_bank, "bands"),
    "gammatone": (speech_features.gammatone, "channels"),
}
TARGETS = ("wave", *SPECTRAL, "prosody")
LEAST_VARIANCE = 1e-8  # slopes of zero crossings have 1e-6; what is constant must stay near 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaseRegression(Objective):
    """See the module's docstring.

    Attributes:
      target: what is regressed.
      encoder, head: the networks' names; every worker has a head of its own.
      context: K, frames on each side that are described too.
      slopes: derivatives over time that are described too, 0 to 2 in the papers.
      window: samples that the description sees; None for the table's.
      size: how fine it is, see the table; None for 2048, 20, 40, 40.
      distorted: the encoder hears distorted speech.
    """

    target: str
    head: str
    encoder: str = "speech"
    context: int = 0
    slopes: int = 0
    window: int | None = None
    size: int | None = None
    distorted: bool = False

    def loss(self, nets, batch, memory, rng):
        audio, lengths = batch["audio"], batch["audio_lengths"]
        heard = audio
        if self.distorted:
            heard = nets(self.encoder, audio, lengths, nets.step, method="distort")
        encoded = nets(self.encoder, heard, lengths)
        frames = frame_count(audio.shape[1])
        if encoded.tokens.shape[1] != frames:
            raise UserError(
                f"network {self.encoder!r} gives {encoded.tokens.shape[1]} states for {frames} frames;"
                f" PASE needs one per {HOP} samples"
            )
        real = within(frame_count(lengths), frames)
        x = self.described(audio, lengths, real)
        target, there = neighbours(x, real, self.context)
        predicted = nets(self.head, encoded.tokens).astype(jnp.float32)
        wanted = target.shape[2] * target.shape[3]
        if predicted.shape[-1] != wanted:
            raise UserError(
                f"network {self.head!r} gives {predicted.shape[-1]} features, target {self.target!r} "
                f"has {wanted}"
            )
        distance = jnp.abs if self.target == "wave" else jnp.square
        errors = distance(target - predicted.reshape(target.shape))
        total, count = counted(errors, there[..., None])
        metrics = {
            # what the mean would cost: a prediction is worth something below it
            "mean_error": counted(distance(x), real[..., None]),
            "prediction_std": feature_std(predicted, real),
            "feature_std": feature_std(encoded.tokens, real),
        }
        return Loss(mean_of(total, count), metrics)

    def described(self, audio: jax.Array, lengths: jax.Array, real: jax.Array) -> jax.Array:
        """float32 [B, F, columns], normalised; 0 where `real` [B, F] is false."""
        if self.target not in TARGETS:
            raise UserError(f"target={self.target!r}; {choices(self.target, TARGETS)}")
        if self.target == "wave":
            if self.slopes or self.window or self.size:
                raise UserError("target='wave' has no slopes, window or size: the frame's samples")
            return zero_beyond(windows(audio, lengths, HOP, centred=False), real)
        settings = {"window": self.window} if self.window else {}
        if self.target == "prosody":
            if self.size:
                raise UserError("target='prosody' has no size: it has four columns")
            x = prosody(audio, lengths, **settings)
        else:
            function, argument = SPECTRAL[self.target]
            x = function(audio, lengths, **settings, **({argument: self.size} if self.size else {}))
        x = speech_features.with_slopes(x, real.sum(-1), self.slopes)
        return zero_beyond(over_time(x, real, LEAST_VARIANCE), real)


def neighbours(x: jax.Array, real: jax.Array, context: int) -> tuple[jax.Array, jax.Array]:
    """Frames t - K .. t + K of x [B, F, C] at every t.

    Returns:
      [B, F, 2 K + 1, C]; and bool [B, F, 2 K + 1], true where frame and neighbour are both real.
    """
    frames = x.shape[1]
    x = jnp.pad(x, ((0, 0), (context, context), (0, 0)))
    there = jnp.pad(real, ((0, 0), (context, context)))
    shifts = range(2 * context + 1)
    near = jnp.stack([x[:, i : i + frames] for i in shifts], axis=2)
    return near, jnp.stack([there[:, i : i + frames] & real for i in shifts], axis=2)
