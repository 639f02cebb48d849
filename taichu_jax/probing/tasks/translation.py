"""The same thing's words in another language, found among those of all other things.

For every ordered pair of languages, descriptions in the first are queries, those of all test things in
the second candidates, ranked by cosine; averaged over the pairs. The mean of a language over training
things is subtracted: else the language would be most of what a state says. The layer is chosen on the
development things.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.evals import ranking
from taichu_jax.probing.collect import pooled
from taichu_jax.probing.examples import TEST, TRAIN, thinned
from taichu_jax.probing.tasks.base import NOTHING_LEARNT, Study, best, curve, result, row
from taichu_jax.probing.tasks.retrieval import cosine

LANGUAGES = ("en", "fr", "es", "de", "ru", "ja")
FIRST, TENTH = "R@1", "R@10"
HEADS = (FIRST, TENTH)
FEWEST = 2  # things that two languages both name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Translation:
    """See the module's docstring.

    Attributes:
      languages: those of the data are used.
    """

    languages: tuple[str, ...] = LANGUAGES
    test_split: str = TEST

    def run(self, study: Study) -> dict[str, Any]:
        """Recalls of all systems."""
        train = study.usable(self._wanted(study, TRAIN))
        test = study.usable(self._wanted(study, self.test_split))
        dev = study.development(train) if train else np.zeros(0, bool)
        development = [i for i, held in zip(train, dev, strict=True) if held]
        rest = [i for i, held in zip(train, dev, strict=True) if not held]
        if not pairs(study, test) or not pairs(study, development):
            raise UserError(
                f"{study.examples.name}: has not {FEWEST} things with words in two of the languages "
                f"{', '.join(self.languages)} in its training and test splits"
            )
        rows = [row("random order", "baseline", _scores(study, test, None))]
        curves = []
        for name, encoder in study.systems(train).items():
            study.say(name)
            states = pooled(encoder, study.examples, train)
            test_states = pooled(encoder, study.examples, test)
            values = []
            for x in states:
                means = _means(study, rest, x[~dev])
                centred = _centred(study, development, x[dev], means)
                values.append(_scores(study, development, centred)[FIRST])
            layer = best(values)
            means = _means(study, train, states[layer])
            centred = _centred(study, test, test_states[layer], means)
            kind = "encoder" if name == study.encoder.name else "baseline"
            layers = dict.fromkeys(HEADS, encoder.layer_names[layer])
            rows.append(row(name, kind, _scores(study, test, centred), layers))
            curves.append(curve(name, FIRST, encoder, values))
        spoken = sorted({language(study, i) for i in test})
        return result(
            f"the same in another language, {len(pairs(study, test))} pairs ({self.test_split})",
            "how often the right words are the first, or among the first ten, in percent",
            HEADS,
            rows,
            curves,
            train=len(train),
            development=len(development),
            test=len(test),
            notes=[
                f"languages: {', '.join(spoken)}",
                NOTHING_LEARNT,
            ],
        )

    def _wanted(self, study: Study, split: str) -> list[int]:
        """One text in each language, of as many things as `limit` allows."""
        found: dict[tuple[str, str], int] = {}
        for i in study.split(split):
            if language(study, i) in self.languages:
                found.setdefault((study.examples.rows[i].group, language(study, i)), i)
        things = sorted({thing for thing, _ in found})
        kept = {things[i] for i in thinned(range(len(things)), study.limit // len(self.languages))}
        return [found[key] for key in sorted(found) if key[0] in kept]


def language(study: Study, i: int) -> str:
    """Of a row."""
    return study.examples.rows[i].labels.get("language", "")


def pairs(study: Study, rows: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(queries, candidates) as places in `rows`, the k-th of both of the same thing."""
    by_language: dict[str, dict[str, int]] = collections.defaultdict(dict)
    for place, i in enumerate(rows):
        by_language[language(study, i)][study.examples.rows[i].group] = place
    found = []
    for a, b in itertools.permutations(sorted(by_language), 2):
        both = sorted(by_language[a].keys() & by_language[b].keys())
        if len(both) >= FEWEST:
            queries, candidates = (
                np.array([by_language[x][thing] for thing in both]) for x in (a, b)
            )
            found.append((queries, candidates))
    return found


def _scores(study: Study, rows: Sequence[int], states: np.ndarray | None) -> dict[str, float]:
    """Mean over the pairs; of a random order where there are no states."""
    tables = []
    for queries, candidates in pairs(study, rows):
        right = np.eye(len(queries), dtype=bool)
        if states is None:
            tables.append(ranking.chance(right))
        else:
            tables.append(ranking.ranking(cosine(states[queries], states[candidates]), right))
    return {head: float(np.mean([table[head] for table in tables])) for head in HEADS}


def _means(study: Study, rows: Sequence[int], states: np.ndarray) -> dict[str, np.ndarray]:
    by_language = collections.defaultdict(list)
    for i, state in zip(rows, states, strict=True):
        by_language[language(study, i)].append(state)
    return {name: np.mean(some, 0) for name, some in by_language.items()}


def _centred(study: Study, rows: Sequence[int], states: np.ndarray, means) -> np.ndarray:
    nothing = np.zeros(states.shape[1])
    return states - np.stack([means.get(language(study, i), nothing) for i in rows])
