"""Speech recognition on held-out recordings: character and word error rates (jiwer).

    rate = (substitutions + deletions + insertions) / symbols of the references, over all recordings

Both are of `spoken_form`: lower case, without punctuation. Beside them stands the best constant guess:
of a language's training transcripts (and of saying nothing) the one that makes the fewest character
errors against the others. Recordings without words are left out.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.languages import LANGUAGES, known
from taichu_jax.data.tokenizer import CharacterTokenizer, spoken_form
from taichu_jax.errors import UserError
from taichu_jax.evals.decoding import ctc, transducer
from taichu_jax.evals.decoding.neural import CausalScorer
from taichu_jax.evals.decoding.ngram import NGram
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.media import Gallery, Originals
from taichu_jax.inference.decoding import write_words
from taichu_jax.objectives.speech.attention_asr import AttentionRecognition
from taichu_jax.objectives.speech.ctc import CTC
from taichu_jax.objectives.speech.recognition import Recognition
from taichu_jax.objectives.speech.transducer import Transducer
from taichu_jax.ops.vocabulary import CLS

GUESS = "best constant guess"
Decoded = dict[str, list[str]]  # way of decoding -> texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechRecognition:
    """See the module's docstring.

    Attributes:
      objective: the name in the config of the objective that is evaluated.
      stream: a `Triplets` stream with text and audio; None for the one that the objective reads. Its
        split is replaced by each of `splits`; what it trains on is what guesses and n-grams learn from.
      languages: that are scored; none: those of the stream.
      beam: prefixes of CTC's beam search; 0 decodes greedily only.
      order: of the characters' n-gram model, learnt from the training transcripts; 0 for none.
      language_model: a run whose causal language model is the scorer too; empty for none.
      language_network: that model's name in its run.
      weight, bonus: of the language model, and for every label.
      limit: recordings that are scored, per split and language, evenly spread.
      guesses: training transcripts per language among which the constant guess is sought.
      examples: recordings shown in the report, per split.
    """

    objective: str
    stream: Any = None
    splits: tuple[str, ...] = ("test", "test_recordings")
    languages: tuple[str, ...] = ()
    beam: int = 0
    order: int = 5
    language_model: str = ""
    language_network: str = "text"
    weight: float = 0.5
    bonus: float = 1.0
    limit: int = 80
    guesses: int = 100
    examples: int = 9

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Scores by split, way of decoding and language; example media go to `out_dir`."""
        objective = self._objective(run)
        stream = run.experiment.streams[objective.source] if self.stream is None else self.stream
        languages = self.languages or stream.languages
        for name in languages:
            known(name, "SpeechRecognition.languages")
        if run.tokenizer is None:
            raise UserError("SpeechRecognition: the run has no tokenizer, so it cannot write words")
        stream = dataclasses.replace(stream, languages=languages)
        transcripts = _transcripts(run, stream)
        guesses = {lang: self._guess(texts) for lang, texts in transcripts.items()}
        decode = self._decoder(run, objective, [t for texts in transcripts.values() for t in texts])
        results, shown, unknown = {}, [], [0, 0]
        for split in self.splits:
            part = dataclasses.replace(stream, split=split)
            part = thinned(part, self.limit * max(1, len(languages)))
            found = decode(part)
            if found is None:
                continue
            fields, written = found
            originals, names = Originals(run, part), [LANGUAGES[i] for i in fields["lang"]]
            exact = [originals.text(i) for i in fields["example"]]
            references = [spoken_form(text) for text in exact]
            written = {k: [spoken_form(t) for t in texts] for k, texts in written.items()}
            written[GUESS] = [guesses.get(lang, "") for lang in names]
            results[split] = {k: scores(names, references, v) for k, v in written.items()}
            if isinstance(run.tokenizer, CharacterTokenizer):
                unknown = np.add(unknown, run.tokenizer.unknown(exact)).tolist()
            gallery = Gallery(run, part, out_dir)
            for i in self._spread(fields["lang"]):
                card = gallery.card(fields["example"][i], ("audio",))
                lines = {k: v[i] for k, v in written.items() if k != GUESS}
                card |= {"split": split, "language": names[i], "reference": references[i]}
                shown.append(card | {"written": lines})
        return {
            "splits": results,
            "guesses": guesses,
            "unknown_characters": 100.0 * unknown[0] / max(1, unknown[1]),
            "transcripts": sum(map(len, transcripts.values())),
            "examples": shown,
        }

    def _objective(self, run) -> Recognition:
        objectives = run.experiment.objectives
        if self.objective not in objectives:
            near = choices(self.objective, objectives)
            raise UserError(f"objective={self.objective!r}: no such objective; {near}")
        objective = objectives[self.objective]
        if not isinstance(objective, CTC | AttentionRecognition | Transducer):
            kind = type(objective).__name__
            raise UserError(f"objective={self.objective!r}: {kind} recognises no speech")
        if self.beam and not isinstance(objective, CTC):
            raise UserError(f"beam={self.beam}: only CTC is decoded with a beam; use 0")
        return objective

    def _decoder(self, run, objective: Recognition, texts: list[str]) -> Callable:
        """From a stream to (fields, {way of decoding: texts}), or None if nothing has words."""
        scorers = self._scorers(run, texts) if self.beam else {}

        def compute(nets, batch):
            if isinstance(objective, CTC):
                log_probs, frames = objective.log_probabilities(nets, batch)
                return {"log_probs": log_probs, "frames": frames}
            encoded, length = objective.hear(nets, batch), batch["text"].shape[1]
            plain = encoded.replace(layers=())
            if isinstance(objective, Transducer):
                names = (objective.predictor, objective.joiner)
                return {"ids": transducer.greedy(nets, *names, plain, length)}
            prompt = jnp.full((plain.mask.shape[0], 1), CLS, jnp.int32)
            told = batch["lang"] if objective.told else None
            return {"ids": write_words(nets, objective.decoder, plain, prompt, length, told)}

        def read(outputs) -> Decoded:
            decode = run.tokenizer.decode
            if not isinstance(objective, CTC):
                return {"greedy": [decode(ids) for ids in outputs["ids"]]}
            rows = [p[:n] for p, n in zip(outputs["log_probs"], outputs["frames"], strict=True)]
            result = {"greedy": [decode(ctc.greedy(row)) for row in rows]}
            for name, (scorer, weight, bonus) in scorers.items():
                options = {"scorer": scorer, "weight": weight, "bonus": bonus, "beam": self.beam}
                best = (ctc.beam_search(row, **options)[0][0] for row in rows)
                result[name] = [decode(list(ids)) for ids in best]
            return result

        def decode(stream):
            fields, outputs = collect(
                run,
                stream,
                compute,
                fields=("lang", "example"),
                where=lambda batch: batch["has_text"] & batch["has_audio"],
            )
            return (fields, read(outputs)) if fields else None

        return decode

    def _scorers(self, run, texts: list[str]) -> dict[str, tuple[Any, float, float]]:
        """Name -> (scorer, weight, bonus)."""
        size = run.tokenizer.vocab_size
        found: dict[str, tuple[Any, float, float]] = {"beam": (None, 0.0, 0.0)}
        if self.order:
            pieces = [run.tokenizer.pieces(text) for text in texts]
            ngram = NGram(pieces, size, self.order)
            found[f"beam, {self.order}-gram"] = (ngram, self.weight, self.bonus)
        if self.language_model:
            from taichu_jax.training.run import Run

            other = Run.open(self.language_model)
            if other.tokenizer is None or any(
                other.tokenizer.pieces(text) != run.tokenizer.pieces(text) for text in texts[:100]
            ):
                raise UserError(f"{self.language_model}: has another vocabulary than {run.path}")
            model = CausalScorer(other, self.language_network)
            found["beam, language model"] = (model, self.weight, self.bonus)
        return found

    def _guess(self, texts: list[str]) -> str:
        import jiwer

        texts = [t for t in map(spoken_form, texts) if t]
        some = [texts[i] for i in np.linspace(0, len(texts) - 1, self.guesses).astype(int)]
        some = list(dict.fromkeys(some)) if texts else []
        if not some:
            return ""
        return min(["", *some], key=lambda guess: jiwer.cer(some, [guess] * len(some)))

    def _spread(self, languages: np.ndarray) -> list[int]:
        """Examples for the report: the languages in turn, recordings at a fixed stride."""
        present, picked = np.unique(languages), []
        for i in range(min(self.examples, languages.size)):
            own = np.flatnonzero(languages == present[i % present.size])
            picked.append(int(own[(5 + 17 * i) % own.size]))
        return list(dict.fromkeys(picked))


def scores(languages: list[str], references: list[str], written: list[str]) -> dict[str, Any]:
    """{"overall": {"CER", "WER", "recordings"}, "languages": {...}}, rates in percent."""
    rows = [r for r in zip(languages, references, written, strict=True) if r[1]]
    own = {lang: [r for r in rows if r[0] == lang] for lang in sorted({r[0] for r in rows})}
    return {"overall": _rates(rows), "languages": {k: _rates(v) for k, v in own.items()}}


def _rates(rows: list[tuple[str, str, str]]) -> dict[str, float]:
    import jiwer

    if not rows:
        return {"CER": float("nan"), "WER": float("nan"), "recordings": 0}
    _, references, written = map(list, zip(*rows, strict=True))
    return {
        "CER": 100.0 * jiwer.cer(references, written),
        "WER": 100.0 * jiwer.wer(references, written),
        "recordings": len(rows),
    }


def _transcripts(run, stream) -> dict[str, list[str]]:
    """Language -> the words of the recordings that the stream trains on."""
    source = stream.source(run.config.data.dir)
    found: dict[str, list[str]] = {}
    for row, language in stream.select(source):
        if text := source.texts(row).get(language, ""):
            found.setdefault(language, []).append(text)
    return found
