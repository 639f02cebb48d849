"""Which of the commonest words is said? (After SUPERB's keyword spotting, arXiv 2105.01051.)

Words of four letters or more, the commonest in the training recordings' texts; a word that mostly occurs
together with one chosen before it is passed over. Recordings with exactly one of them are asked. Where
the language is known its commonest word is a good guess, which stands beside the commonest of all.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

import numpy as np

from taichu_jax.data.items import Damaged
from taichu_jax.data.tokenizer import spoken_form
from taichu_jax.evals import classify
from taichu_jax.probing.examples import TEST, TRAIN
from taichu_jax.probing.tasks.base import FEWEST, Labelled, Study, labelled
from taichu_jax.probing.tasks.classification import classified

LETTERS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keyword:
    """See the module's docstring.

    Attributes:
      words: how many.
      test_split: what is asked; recordings of things that are not in the training split by default.
    """

    words: int = 20
    test_split: str = TEST

    def run(self, study: Study) -> dict[str, Any]:
        """Accuracies of all systems."""

        @functools.cache
        def said(i: int) -> frozenset[str]:
            try:
                return frozenset(spoken_form(study.examples.text(i)).split())
            except Damaged as damage:
                study.harm.add(i, damage)
                return frozenset()

        chosen = keywords([said(i) for i in study.split(TRAIN)], self.words)

        def label(i):
            found = said(i) & chosen
            return next(iter(found)) if len(found) == 1 else None

        def languages(found: Labelled) -> dict[str, float]:
            spoken, asked = (
                [study.examples.rows[i].labels.get("language", "") for i in rows]
                for rows in (found.train, found.test)
            )
            if not any(spoken):
                return {}
            guess = commonest_within(spoken, found.labels, asked)
            return {
                "commonest of the language": classify.accuracy(guess, found.test_labels),
            }

        found = labelled(study, label, self.test_split)
        return classified(study, found, "keyword", self.test_split, languages)


def keywords(said: list[frozenset[str]], count: int) -> frozenset[str]:
    """The commonest words, without those that mostly come together with a commoner one."""
    counts = collections.Counter(word for words in said for word in words if len(word) >= LETTERS)
    chosen: set[str] = set()
    for word, total in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if len(chosen) == count or total < FEWEST:
            break
        together = sum(word in words and bool(words & chosen) for words in said)
        if together <= total / 2:
            chosen.add(word)
    return frozenset(chosen)


def commonest_within(groups: list[str], labels: np.ndarray, asked: list[str]) -> np.ndarray:
    """For every group that is asked its commonest label; for an unknown one, that of all."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for group, label in zip(groups, labels.tolist(), strict=True):
        counts[group][label] += 1
        counts[""][label] += 1
    return np.array([counts.get(x, counts[""]).most_common(1)[0][0] for x in asked])
