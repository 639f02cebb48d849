"""What a run draws and says, judged by another run: can it be told what it was made from?

A picture is drawn from a voice, from words or from both, and a voice speaks from a picture, from words or
from both, by chance with a fixed seed. A judge (judge.py) ranks the words of all items of the same split
and language by their similarity to what was made; R@k is the share of queries for which the right words
are among the first k. It does the same with the third modality. Ties and several right answers count as
in ranking.py; intervals are Wilson's, for as many trials as there are different things.

Rows beside what was made:
  chance        exactly, of the same candidates
  real          the item's own picture or recording: what the judge can
  tokeniser     that one as codes and back: the most that any choice of codes could be expected to reach
  ... shuffled  what was made for another item of the same language: must be at chance

Voices reach the judge as sound: codes, log-mel frames, Griffin-Lim (or a vocoder), and analysed again as
recordings are. Of `test` nothing was seen in training; of `test_recordings` the pictures were, and the
recordings and their words were not.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from taichu_jax.config import choices
from taichu_jax.data.audio import RATE, log_mel
from taichu_jax.data.languages import LANGUAGES, known
from taichu_jax.errors import UserError
from taichu_jax.evals.diversity import cosine_distance, distinct, diversity, squared_error
from taichu_jax.evals.features import collect
from taichu_jax.evals.judge import Items, Judge, silent
from taichu_jax.evals.makers import INPUTS, Made, PictureMaker, VoiceMaker, objective_of
from taichu_jax.evals.media import Folder, Originals
from taichu_jax.evals.questions import Questions, in_turn
from taichu_jax.inference.decoding import Sampling
from taichu_jax.inference.vocoder import NeuralVocoder
from taichu_jax.ops.random import fold_name

WAYS = (
    *("audio->image", "text->image", "text+audio->image"),
    *("image->audio", "text->audio", "text+image->audio"),
)
AGAINST = {"image": ("text", "audio"), "audio": ("text", "image")}
REAL, TOKENISER = "real", "tokeniser"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """See the module's docstring.

    Attributes:
      stream: the `Triplets` stream that the run reads; its split is replaced by each of `splits`.
      judge: a run's folder, another than the one that is judged.
      ways: 'inputs->output', of WAYS.
      languages: the items' languages, in turn.
      limit: items that something is made for, per split, evenly spread; each thing once while there are
        others.
      samples: made from each of the `varied` items, for diversity; from the others one.
      temperature, top_k, top_p: see `inference.decoding.Sampling`; temperature 0 takes the likeliest.
      seed: of the samples.
      vocoder, vocoder_run: a generator's name and its run's folder; by default Griffin-Lim.
      examples: of the varied items those shown in the report, per split.
    """

    stream: Any
    judge: str = "runs/judge_stamps"
    ways: tuple[str, ...] = WAYS
    languages: tuple[str, ...] = ("fr", "ro", "ru", "bg", "ca", "es")
    splits: tuple[str, ...] = ("test", "test_recordings")
    limit: int = 300
    samples: int = 3
    varied: int = 12
    temperature: float = 1.0
    top_k: int = 32
    top_p: float = 1.0
    seed: int = 0
    vocoder: str = "vocoder"
    vocoder_run: str = ""
    examples: int = 6

    def __post_init__(self):
        for way in self.ways:
            if way not in WAYS:
                raise UserError(f"ways: no such {way!r}; {choices(way, WAYS)}")
        for name in ("limit", "samples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be 1 or more")

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Scores by split, kind of thing that is made and modality of the answers; media to `out_dir`."""
        for name in self.languages:
            known(name, "Generation.languages")
        makers = self._makers(run)
        judge = Judge.open(self.judge, run)
        if judge.stream.dataset != self.stream.dataset:
            raise UserError(
                f"judge={self.judge!r}: was trained on {judge.stream.dataset!r}, "
                f"this is about {self.stream.dataset!r}"
            )
        results, shown, folder = {}, [], Folder(out_dir)
        for split in self.splits:
            items = judge.items(split, self.languages)
            if not items.keys:
                continue
            table, cards = self._split(run, judge, makers, items, split, folder)
            results[split] = table
            shown += cards
        return {
            "judge": {"name": judge.run.config.name, "step": int(judge.run.step)},
            "vocoder": self.vocoder_run or "Griffin-Lim",
            "sampling": {k: getattr(self, k) for k in ("temperature", "top_k", "top_p", "seed")},
            "splits": results,
            "examples": shown,
        }

    def _makers(self, run) -> dict[str, Any]:
        sampling = Sampling(self.temperature, self.top_k, self.top_p).check()
        makers: dict[str, Any] = {}
        for kind in dict.fromkeys(_parsed(way)[1] for way in self.ways):
            objective = objective_of(run, kind)
            if kind == "image":
                makers[kind] = PictureMaker(run, objective, sampling)
            else:
                opened = (
                    NeuralVocoder.open(self.vocoder_run, self.vocoder) if self.vocoder_run else None
                )
                makers[kind] = VoiceMaker(run, objective, sampling, opened)
        return makers

    def _split(self, run, judge, makers, items: Items, split: str, folder: Folder):
        """(the table, the cards) of one split."""
        concepts, languages = items.fields["concept"], items.fields["lang"]
        asked = in_turn(concepts, languages, self.limit)
        keys = [items.keys[i] for i in asked]
        stream = dataclasses.replace(self.stream, split=split, languages=self.languages)
        originals = Originals(run, stream)
        fields, examples = _inputs(run, stream, keys)
        varied = np.unique(np.linspace(0, asked.size - 1, min(self.varied, asked.size)).astype(int))
        most = round(stream.seconds * RATE)
        real = {
            "image": list(fields["image"]),
            "audio": [originals.wave(i)[:most] for i in examples],
        }
        again = {kind: maker.again(real[kind]) for kind, maker in makers.items()}
        made = {way: self._made(makers, fields, split, way, varied) for way in self.ways}
        heard = {"image": judge.pictures, "audio": judge.voices}
        questions = Questions(items, asked)
        table: dict[str, Any] = {
            "items": int(asked.size),
            "things": questions.trials,
            "candidates": [int(f(questions.candidates.sum(1))) for f in (np.min, np.max)],
            "scores": {},
            "diversity": {},
            "lengths": {},
        }
        for kind in makers:
            own = items.embeddings[kind][asked]
            reference = {REAL: own, TOKENISER: heard[kind](again[kind])}
            queries = {}
            for way in (way for way in self.ways if _parsed(way)[1] == kind):
                seen = [heard[kind](part.things) for part in made[way]]
                queries["+".join(_parsed(way)[0])] = seen[0]
                measured = _diversity(made[way], seen, varied, real[kind], own)
                table["diversity"][way] = measured
                if kind == "audio":
                    table["lengths"][way] = _lengths(made[way][0].things, real[kind])
            table["scores"][kind] = {
                target: questions.table(reference, queries, target) for target in AGAINST[kind]
            }
        cards = []
        for place, i in enumerate(varied[: self.examples]):
            card = self._card(place, i, originals, examples, real, again, made, folder)
            cards.append({"split": split, "language": LANGUAGES[languages[asked[i]]]} | card)
        return table, cards

    def _made(self, makers, fields, split: str, way: str, varied: np.ndarray) -> list[Made]:
        """The first sample of every item, then further ones of the varied items."""
        sources, kind = _parsed(way)
        key = fold_name(jax.random.key(self.seed), f"{split} {way}")
        count = len(fields["lang"])
        some = {name: value[varied] for name, value in fields.items()}
        return [
            makers[kind].make(
                some if sample else fields,
                sources,
                key,
                sample * count + (varied if sample else np.arange(count)),
            )
            for sample in range(self.samples)
        ]

    def _card(self, place, i, originals, examples, real, again, made, folder) -> dict[str, Any]:
        """What is shown of item i: its words, the real things, these as codes, and what was made."""
        low, high = np.percentile(log_mel(real["audio"][i]), [2, 99.5])

        def shown(kind, thing):
            if kind == "image":
                return folder.picture(thing, exact=True)
            picture = folder.spectrogram(log_mel(thing), low, high)
            return {"audio": folder.clip(thing), "picture": picture}

        return {
            "text": originals.text(examples[i]),
            REAL: {kind: shown(kind, things[i]) for kind, things in real.items()},
            TOKENISER: {kind: shown(kind, things[i]) for kind, things in again.items()},
            "made": {
                way: [shown(_parsed(way)[1], x) for x in _samples(parts, place, i)]
                for way, parts in made.items()
            },
        }


def _parsed(way: str) -> tuple[tuple[str, ...], str]:
    """(inputs, output) of 'text+audio->image'."""
    sources, _, kind = way.partition("->")
    return tuple(sources.split("+")), kind


def _inputs(run, stream, keys) -> tuple[dict[str, np.ndarray], list[int]]:
    """(the stream's fields of the examples `keys`, in their order; their numbers in the stream)."""
    numbers = {
        (row, language): i
        for i, (row, language) in enumerate(stream.select(stream.source(run.config.data.dir)))
    }
    examples = [numbers[key] for key in keys]
    fields, _ = collect(
        run,
        stream,
        fields=(*INPUTS, "example"),
        where=lambda batch: np.isin(batch["example"], examples),
    )
    place = {example: i for i, example in enumerate(fields.pop("example").tolist())}
    order = [place[example] for example in examples]
    return {name: value[order] for name, value in fields.items()}, examples


def _samples(made: Sequence[Made], place: int, i: int, of: str = "things") -> list[np.ndarray]:
    """All samples of item i, which is number `place` of the varied ones."""
    first, *further = (getattr(part, of) for part in made)
    return [first[i], *(part[place] for part in further)]


def _diversity(made, seen, varied, real, real_seen) -> dict[str, float]:
    """How different the samples of one input are, to the judge and by squared error; distinct codes."""

    def values(thing):
        return log_mel(thing) if thing.ndim == 1 else thing

    groups = [_samples(made, place, i) for place, i in enumerate(varied)]
    codes = [_samples(made, place, i, "codes") for place, i in enumerate(varied)]
    looks = [[seen[0][i], *(x[place] for x in seen[1:])] for place, i in enumerate(varied)]
    values_of = [[values(thing) for thing in group] for group in groups]
    return {
        "judge": diversity(looks, [real_seen[i] for i in varied], cosine_distance),
        "squared_error": diversity(values_of, [values(real[i]) for i in varied], squared_error),
        "distinct_items": distinct(made[0].codes),
        "distinct_samples": float(np.mean([distinct(group) for group in codes])),
    }


def _lengths(made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> dict[str, float]:
    """Length of what was said over that of the real recording; the share of silent ones in percent."""
    ratios = [len(x) / len(y) for x, y in zip(made, real, strict=True)]
    return {
        "ratio": float(np.mean(ratios)),
        "deviation": float(np.std(ratios)),
        "silent": 100.0 * float(np.mean([silent(wave) for wave in made])),
    }
