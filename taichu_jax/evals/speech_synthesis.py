"""Held-out words read aloud, beside the recordings of them.

Log-mel distance after time warping (warping.py), in nepers of power; beside it the same words with the
recording's own durations, pitch and energy, and another recording of the same language, which says
other words. Durations, against those of the alignment: of whole recordings in percent, of symbols in
frames, beside a constant number of frames for every symbol; the percentage of symbols that the alignment
gives one frame, near 100 where it failed. Character errors of a recogniser, if one is given, of what is
synthesised and of the recordings themselves, both through the same vocoder.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.audio import RATE, log_mel
from taichu_jax.data.languages import LANGUAGES, known
from taichu_jax.data.tokenizer import spoken_form
from taichu_jax.errors import UserError
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.listener import Listener
from taichu_jax.evals.media import Folder, Originals
from taichu_jax.evals.recognition import scores
from taichu_jax.evals.warping import warped_mel_distance
from taichu_jax.inference.vocoder import NeuralVocoder, griffin_lim
from taichu_jax.objectives.speech.fast_speech2 import FastSpeech2
from taichu_jax.training.run import Run

RECORDING, SYNTHESISED = "the recording", "synthesised"
PROSODY, ANOTHER = "with the recording's prosody", "another recording"
_PER_SYMBOL = 5  # rows of pixels in the picture of an alignment


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechSynthesis:
    """See the module's docstring.

    Attributes:
      objective: the name in the config of a `FastSpeech2`.
      stream: a `Triplets` stream with text and samples; None for the one that the objective reads. Its
        split is replaced.
      languages: that are read aloud; none: those of the stream.
      vocoder, vocoder_run: as in `Resynthesis`; without a vocoder Griffin-Lim makes the sound.
      recogniser: a run's folder with a CTC objective; empty for no character errors.
      limit: recordings, evenly spread; those that the objective leaves out are left out here.
      examples: of them shown in the report.
    """

    objective: str
    stream: Any = None
    languages: tuple[str, ...] = ()
    split: str = "test"
    vocoder: str = ""
    vocoder_run: str = ""
    recogniser: str = ""
    limit: int = 60
    examples: int = 6

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Distances, durations and character errors; sounds and pictures go to `out_dir`."""
        objective = self._objective(run)
        stream = run.experiment.streams[objective.source] if self.stream is None else self.stream
        for name in self.languages:
            known(name, "SpeechSynthesis.languages")
        languages = self.languages or stream.languages
        stream = dataclasses.replace(stream, split=self.split, languages=languages)
        stream = thinned(stream, self.limit)
        listener = Listener(Run.open(self.recogniser)) if self.recogniser else None
        said = _said(run, objective, stream)
        names = [one["language"] for one in said]
        result: dict[str, Any] = {
            "split": self.split,
            "recordings": len(said),
            "rows": _distances(said, names),
            "durations": _durations(said),
            "cut": sum(bool(one["made"]["cut"]) for one in said),
        }
        shown = np.linspace(0, len(said) - 1, min(self.examples, len(said))).astype(int).tolist()
        heard = range(len(said)) if listener else shown
        sounds = self._sounds(run, [said[i] for i in heard])
        result["sound"] = "vocoder" if self.vocoder else "Griffin-Lim"
        result["recogniser"] = self.recogniser
        result["errors"] = None
        if listener:
            references = [spoken_form(one["words"]) for one in said]
            ways = {RECORDING: [one["wave"] for one in said]} | sounds
            written = {w: [spoken_form(t) for t in listener(waves)] for w, waves in ways.items()}
            result["errors"] = {w: scores(names, references, t) for w, t in written.items()}
        place = {i: position for position, i in enumerate(heard)}
        folder = Folder(out_dir)
        result["examples"] = [
            _example(folder, said[i], {w: waves[place[i]] for w, waves in sounds.items()})
            for i in shown
        ]
        return result

    def _objective(self, run) -> FastSpeech2:
        found = run.experiment.objectives
        if self.objective not in found:
            near = choices(self.objective, found)
            raise UserError(f"objective={self.objective!r}: no such objective; {near}")
        objective = found[self.objective]
        if not isinstance(objective, FastSpeech2):
            kind = type(objective).__name__
            raise UserError(f"objective={self.objective!r}: {kind} synthesises no speech")
        return objective

    def _sounds(self, run, said) -> dict[str, list[np.ndarray]]:
        """Way of making -> waves."""
        mels = {
            f"{RECORDING}, made again": [one["mel"] for one in said],
            PROSODY: [one["copied"] for one in said],
            SYNTHESISED: [one["made"]["mel"] for one in said],
        }
        if not self.vocoder:
            return {way: [griffin_lim(mel) for mel in some] for way, some in mels.items()}
        source = NeuralVocoder.open if self.vocoder_run else NeuralVocoder
        vocoder = source(self.vocoder_run or run, self.vocoder)
        return {way: vocoder(some) for way, some in mels.items()}


def _said(run, objective: FastSpeech2, stream) -> list[dict[str, Any]]:
    """What was recorded and what is synthesised, for each recording that counts."""
    frames = round(stream.seconds * RATE) // 160 + 1

    def compute(nets, batch):
        heard = objective.hear(batch)
        aligned = objective.align(nets, batch, heard)
        copied = objective.say(nets, batch, aligned, frames)
        made = objective.synthesise(nets, batch, frames=frames)
        return {
            "used": aligned.used,
            "log_p": aligned.log_p,
            "symbol": aligned.symbol,
            "durations": aligned.durations,
            "copied": copied.mel if copied.refined is None else copied.refined,
            "made": made._asdict(),
        }

    fields, found = collect(
        run,
        stream,
        compute,
        ("lang", "example", "audio", "audio_lengths", "text_mask"),
        where=lambda batch: batch["has_text"] & batch["has_audio"],
    )
    originals, said = Originals(run, stream), []
    for i in np.flatnonzero(found["used"]) if found else ():
        wave = fields["audio"][i, : fields["audio_lengths"][i]]
        mel = log_mel(wave, objective.bands)
        symbols, length = int(fields["text_mask"][i].sum()), int(found["made"]["lengths"][i])
        made = found["made"]["durations"][i, :symbols]
        said.append(
            {
                "words": originals.text(fields["example"][i]),
                "language": LANGUAGES[fields["lang"][i]],
                "wave": wave,
                "mel": mel,
                "copied": np.asarray(found["copied"][i, : len(mel)], np.float32),
                "alignment": np.exp(found["log_p"][i, : len(mel), :symbols]),
                "symbol": found["symbol"][i, : len(mel)],
                "durations": found["durations"][i, :symbols],
                "made": {
                    "mel": np.asarray(found["made"]["mel"][i, :length], np.float32),
                    "durations": made,
                    "cut": made.sum() > length,
                },
            }
        )
    if not said:
        raise UserError(f"split={stream.split!r}: no recording that the objective would count")
    return said


def _distances(said, names: list[str]) -> list[dict[str, Any]]:
    """Mean distance from the recordings, by way of making."""
    others: list[int | None] = []
    for i, name in enumerate(names):
        after = [(i + step) % len(said) for step in range(1, len(said))]
        others.append(next((j for j in after if names[j] == name), None))
    ways = {
        SYNTHESISED: [one["made"]["mel"] for one in said],
        PROSODY: [one["copied"] for one in said],
        ANOTHER: [None if j is None else said[j]["mel"] for j in others],
    }
    rows = []
    for way, mels in ways.items():
        pairs = [(x["mel"], y) for x, y in zip(said, mels, strict=True) if y is not None]
        distance = np.mean([warped_mel_distance(x, y) for x, y in pairs]) if pairs else np.nan
        rows.append({"way": way, "mel": float(distance), "recordings": len(pairs)})
    return rows


def _durations(said) -> dict[str, float]:
    """Mean absolute errors, in percent of a recording's length and in frames of a symbol."""
    true = [one["durations"] for one in said]
    made = [one["made"]["durations"] for one in said]
    mean = sum(d.sum() for d in true) / sum(map(len, true))

    def length(values):
        return 100 * float(
            np.mean([abs(v - d.sum()) / d.sum() for v, d in zip(values, true, strict=True)])
        )

    return {
        "length": length([d.sum() for d in made]),
        "length_guess": length([mean * len(d) for d in true]),
        "symbol": float(np.abs(np.concatenate(made) - np.concatenate(true)).mean()),
        "symbol_guess": float(np.abs(mean - np.concatenate(true)).mean()),
        "frames_per_symbol": float(mean),
        "single": 100 * float((np.concatenate(true) == 1).mean()),
    }


def _example(folder: Folder, one: dict[str, Any], sounds: dict[str, np.ndarray]) -> dict[str, Any]:
    low, high = np.percentile(one["mel"], [2, 99.5])
    mels = {RECORDING: one["mel"], PROSODY: one["copied"], SYNTHESISED: one["made"]["mel"]}
    waves = {RECORDING: one["wave"]} | sounds
    taken = np.zeros_like(one["alignment"])
    taken[np.arange(len(taken)), one["symbol"]] = 1.0
    return {
        "words": one["words"],
        "language": one["language"],
        "sounds": [
            {
                "way": way,
                "audio": folder.clip(waves[way]),
                "picture": folder.spectrogram(mel, low, high),
            }
            for way, mel in mels.items()
        ],
        "alignments": [
            {
                "way": way,
                "picture": folder.spectrogram(np.repeat(values, _PER_SYMBOL, axis=1), 0.0, 1.0),
            }
            for way, values in (("p(symbol | frame)", one["alignment"]), ("likeliest", taken))
        ],
    }
