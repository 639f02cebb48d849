"""Text to speech without marks: FastSpeech 2 (arXiv 2006.04558) with learned alignments (2108.10447).

    L = |x - y|_1 + |x - y'|_1 + (ln(1 + d) - d^)^2 + (p - p^)^2 + (e - e^)^2 + L_sum + w L_bin
    L_sum = - ln sum over alignments s of prod_t p(s_t | t)          each row's, over all symbols
    L_bin = - mean over frames of ln p(h_t | t),    h = argmax over alignments of prod_t p(h_t | t)

x are log-mel frames, y the decoder's and y' the post-net's; each error is a mean over real frames or
symbols. d_n is how many frames the likeliest alignment h gives symbol n; p_n and e_n are the recording's
log F0 (of voiced frames) and log energy averaged over them, of mean 0 and variance 1 over the data. An
unvoiced symbol has p_n = 0, as in FastPitch. d, p and e are targets, and what the decoder is given.

Symbols are all ids of `text`, with [CLS] and [SEP], which take the silence at both ends. Log-mel frames
are those of `data/audio.py`; energy is the logarithm of the paper's, the Euclidean norm of the frame's
magnitudes, since recordings differ by factors; F0 as in ops/prosody.py, where the paper has WORLD. All
three are computed on the device. A row without sound or words does not count, nor one with fewer frames
than symbols (`too_long`), which has no alignment. `single_frames` is the share of symbols that the
likeliest alignment gives one frame: near 1 where a few symbols have taken all (models/aligner.py).

Batch: `audio` float [B, T], samples in [-1, 1] (a stream with audio='waveform', normalise=False), and
`audio_lengths` int32 [B]; `text` int32 [B, N] and `text_mask` bool [B, N]; `lang` int32 [B].
Networks: `speech` (`FastSpeech`), `aligner` (`Aligner`).
Defaults: all weights 1 as in the code of both; L_sum without the blank that the authors' code adds, as
in their equation 3, divided by the batch's symbols, where the code averages over rows; L_bin enters
with w from 0 to 1, here over 1,000 steps. F0 from 60 to 400 Hz: ours, for all voices.
Checked against: NumPy loops over rows, frames and symbols, given the same alignment; all alignments,
enumerated; scipy's beta-binomial; transformers' variance predictor and length regulator.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.models.fast_speech import Spoken, Synthesis
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.alignment import durations_of, forward_sum_losses, monotonic_alignment
from taichu_jax.ops.durations import averaged
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.log_mel import WINDOW, log_mel
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.normalise import over_time
from taichu_jax.ops.prosody import VOICED, pitch
from taichu_jax.ops.schedules import Linear, Schedule, value_at
from taichu_jax.ops.speech_features import FLOOR, power_spectrum
from taichu_jax.ops.speech_frames import HOP

Batch = Mapping[str, jax.Array]


class Heard(NamedTuple):
    """A batch's recordings, frame by frame.

    Attributes:
      mel: [B, F, M].
      lengths: int32 [B], the real frames.
      pitch, energy: float32 [B, F], of mean 0 and variance 1 over the data.
      voiced: bool [B, F], frames that have a pitch.
    """

    mel: jax.Array
    lengths: jax.Array
    pitch: jax.Array
    energy: jax.Array
    voiced: jax.Array


class Aligned(NamedTuple):
    """Which frames say which symbol.

    Attributes:
      embedded: the symbols [B, N, D].
      log_p: float32 [B, F, N] of every symbol at every frame.
      symbol: int32 [B, F], the likeliest alignment.
      durations: int32 [B, N], 0 in rows that do not count.
      pitch, energy: float32 [B, N], of the recording.
      used: bool [B], rows that count.
      fits: bool [B], rows with at least as many frames as symbols.
    """

    embedded: jax.Array
    log_p: jax.Array
    symbol: jax.Array
    durations: jax.Array
    pitch: jax.Array
    energy: jax.Array
    used: jax.Array
    fits: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastSpeech2(Objective):
    """See the module's docstring.

    Attributes:
      speech, aligner: the networks' names.
      told: the network is told the language.
      bands: of the spectrograms.
      low, high: Hz, where F0 is looked for.
      pitch_mean, pitch_deviation: of ln F0 (Hz) over the data's voiced frames.
      energy_mean, energy_deviation: of the logarithm of the energy over the data's frames.
      mel, refined, duration, pitch, energy, forward_sum, binarisation: the terms' weights.
      blank: of the authors' code, -1; None for none (ops/alignment.py).
      skip_full: rows that fill the batch's samples or ids are left out, as they may have been cut.
    """

    speech: str = "speech"
    aligner: str = "aligner"
    told: bool = True
    bands: int = 80
    low: float = 60.0
    high: float = 400.0
    pitch_mean: float = 0.0
    pitch_deviation: float = 1.0
    energy_mean: float = 0.0
    energy_deviation: float = 1.0
    mel: float | Schedule = 1.0
    refined: float | Schedule = 1.0
    duration: float | Schedule = 1.0
    pitch: float | Schedule = 1.0
    energy: float | Schedule = 1.0
    forward_sum: float | Schedule = 1.0
    binarisation: float | Schedule = Linear(start=0.0, end=1.0, steps=1000)
    blank: float | None = None
    skip_full: bool = True

    def __post_init__(self):
        if not 0 < self.low < self.high:
            raise UserError(
                f"low={self.low}, high={self.high}: must be above 0, and low below high"
            )
        for name in ("pitch_deviation", "energy_deviation"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)}: must be above 0")

    def loss(self, nets, batch, memory, rng):
        heard = self.hear(batch)
        aligned = self.align(nets, batch, heard)
        spoken = self.say(nets, batch, aligned, heard.mel.shape[1])
        frames = heard.mel.shape[1]
        real = within(heard.lengths, frames) & aligned.used[:, None]
        said = batch["text_mask"] & aligned.used[:, None]
        symbols = batch["text_mask"].sum(-1)

        def squared(predicted, target):
            return counted(jnp.square(predicted.astype(jnp.float32) - target), said)

        # A likeliest alignment is found anew in each step; nothing is learnt through it.
        on_path = jnp.take_along_axis(aligned.log_p, aligned.symbol[..., None], axis=-1)[..., 0]
        sums = forward_sum_losses(aligned.log_p, heard.lengths, symbols, self.blank)
        terms = {
            "mel": counted(jnp.abs(spoken.mel - heard.mel), real[..., None]),
            "duration": squared(spoken.log_durations, jnp.log1p(aligned.durations)),
            "pitch": squared(spoken.pitch, aligned.pitch),
            "energy": squared(spoken.energy, aligned.energy),
            "forward_sum": (
                jnp.where(aligned.used, sums, 0.0).sum(),
                said.sum().astype(jnp.float32),
            ),
            "binarisation": counted(-on_path, real),
        }
        if spoken.refined is not None:
            terms["refined"] = counted(jnp.abs(spoken.refined - heard.mel), real[..., None])
        value = sum(
            value_at(getattr(self, name), nets.step) * mean_of(*term)
            for name, term in terms.items()
        )
        there = (symbols > 0) & (heard.lengths > 0)
        voices = counted(heard.voiced, real)
        metrics = terms | {
            "used_rows": counted(aligned.used),
            "too_long": counted(~aligned.fits, there),
            "voiced_share": voices,
            "single_frames": counted(aligned.durations == 1, said),
            "feature_std": feature_std(spoken.states, said),
        }
        return Loss(value, metrics)

    def hear(self, batch: Batch) -> Heard:
        """Spectrogram, pitch and energy of the recordings."""
        samples = batch["audio_lengths"]
        here = within(samples, batch["audio"].shape[1])
        audio = zero_beyond(batch["audio"].astype(jnp.float32), here)
        mel = log_mel(audio, samples, self.bands)
        lengths = jnp.where(samples > 0, samples // HOP + 1, 0).astype(jnp.int32)

        room = ((0, 0), (0, HOP))  # for the frame that is centred on the end, as in `log_mel`
        level = zero_beyond(over_time(audio[..., None], here)[..., 0], here)
        hertz, voicing = pitch(jnp.pad(level, room), samples, low=self.low, high=self.high)
        power = power_spectrum(jnp.pad(audio, room), samples, WINDOW, WINDOW).sum(-1)
        energy = 0.5 * jnp.log(jnp.maximum(power, FLOOR))
        return Heard(
            mel,
            lengths,
            (jnp.log(hertz) - self.pitch_mean) / self.pitch_deviation,
            (energy - self.energy_mean) / self.energy_deviation,
            (voicing > VOICED) & within(lengths, mel.shape[1]),
        )

    def align(self, nets, batch: Batch, heard: Heard) -> Aligned:
        """Durations of the symbols, and the recordings' pitch and energy over each."""
        text, mask = batch["text"], batch["text_mask"]
        symbols = mask.sum(-1).astype(jnp.int32)
        fits = heard.lengths >= symbols
        used = fits & (symbols > 0) & (heard.lengths > 0)
        if self.skip_full:
            used &= (batch["audio_lengths"] < batch["audio"].shape[1]) & ~mask.all(-1)
        embedded = nets(self.speech, text, self._language(batch), method="embed")
        log_p = nets(self.aligner, embedded, symbols, heard.mel, heard.lengths)
        symbol = monotonic_alignment(log_p, heard.lengths, symbols)
        durations = durations_of(symbol, heard.lengths, text.shape[1])
        durations = jnp.where(used[:, None], durations, 0)
        high, _ = averaged(heard.pitch, durations, heard.voiced)
        loud, _ = averaged(heard.energy, durations)
        return Aligned(embedded, log_p, symbol, durations, high, loud, used, fits)

    def say(self, nets, batch: Batch, aligned: Aligned, frames: int) -> Spoken:
        """The words again, with the recordings' durations, pitch and energy."""
        given = (aligned.durations, aligned.pitch, aligned.energy)
        mask = batch["text_mask"]
        return nets(self.speech, aligned.embedded, mask, *given, frames=frames)

    def synthesise(
        self,
        nets,
        batch: Batch,
        *,
        frames: int,
        speed: float = 1.0,
        semitones: float = 0.0,
        decibels: float = 0.0,
    ) -> Synthesis:
        """The words of a batch as speech of at most `frames` frames, higher or louder by so much."""
        if not speed > 0:
            raise UserError(f"speed={speed}: must be above 0")
        return nets(
            self.speech,
            batch["text"],
            batch["text_mask"].sum(-1),
            self._language(batch),
            method="synthesise",
            frames=frames,
            speed=speed,
            pitch_shift=semitones * math.log(2) / 12 / self.pitch_deviation,
            energy_shift=decibels * math.log(10) / 20 / self.energy_deviation,
        )

    def _language(self, batch: Batch) -> jax.Array | None:
        return batch["lang"] if self.told else None
