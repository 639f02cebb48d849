"""Which item was it made from? Questions to a judge about some of a split's items, and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from taichu_jax.evals import ranking
from taichu_jax.evals.intervals import wilson
from taichu_jax.evals.judge import Items
from taichu_jax.evals.retrieval import FLAT, alike

CHANCE, SHUFFLED = "chance", "{} shuffled"


def in_turn(concepts: np.ndarray, languages: np.ndarray, limit: int) -> np.ndarray:
    """int [at most limit]: examples at even distances, the languages in turn.

    Every concept comes once before any comes twice, then in another language: so that as few examples as
    possible depend on each other.
    """
    place: dict[tuple, int] = {}
    for i, key in enumerate(zip(concepts.tolist(), languages.tolist(), strict=True)):
        place.setdefault(key, i)
    present, names = np.unique(languages).tolist(), list(dict.fromkeys(concepts.tolist()))
    picked: list[int] = []
    for turn in range(len(present)):
        size = min(limit - len(picked), len(names))
        for t, where in enumerate(np.linspace(0, len(names) - 1, size).astype(int)):
            order = (present[(t + turn + step) % len(present)] for step in range(len(present)))
            free = (place.get((names[where], language)) for language in order)
            picked += next(([i] for i in free if i is not None and i not in picked), [])
    return np.array(picked, int)


class Questions:
    """About the items `asked`, int [Q], with all items of their languages as candidates.

    Attributes:
      candidates, right: bool [Q, N]; right is what is of the same concept, or has the same words.
      others: int [Q], for each question one about another thing, of the same language where there is one;
        -1: there is none.
      trials: different concepts that are asked about.
    """

    def __init__(self, items: Items, asked: np.ndarray):
        fields, everything = items.fields, np.arange(len(items.keys))
        languages = fields["lang"]
        self._items = items
        self.candidates = languages[asked][:, None] == languages[None]
        self.right = alike(fields, asked, everything) & self.candidates
        self.others = _others(alike(fields, asked, asked), languages[asked])
        self.trials = int(np.unique(fields["concept"][asked]).size)

    def scores(self, queries: np.ndarray | None, target: str) -> dict[str, Any]:
        """R@k in percent, their intervals, median and mean rank.

        Args:
          queries: float [Q, E]; None for chance.
          target: the modality of the candidates.
        """
        if queries is None:
            similarity = np.zeros(self.right.shape)
        else:
            answers = self._items.embeddings[target].astype(np.float64)
            similarity = np.round(queries.astype(np.float64) @ answers.T / FLAT) * FLAT
        ranks = ranking.rank_distributions(similarity, self.right, self.candidates)
        numbers: dict[str, Any] = dict(ranking.summary(ranks))
        numbers["interval"] = {
            key: [100.0 * end for end in wilson(value / 100.0, self.trials)]
            for key, value in numbers.items()
            if key.startswith("R@")
        }
        return numbers

    def table(
        self, reference: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], target: str
    ) -> dict[str, dict[str, Any]]:
        """Row -> scores: chance, the references, what was made, and the same shuffled."""
        rows = {CHANCE: self.scores(None, target)}
        rows |= {name: self.scores(x, target) for name, x in {**reference, **made}.items()}
        if (self.others >= 0).all():
            for name, queries in made.items():
                rows[SHUFFLED.format(name)] = self.scores(queries[self.others], target)
        return rows


def _others(same: np.ndarray, languages: np.ndarray) -> np.ndarray:
    """int [Q]: for each question another one that is not the same, about half the questions away."""
    count, found = len(same), []
    for i in range(count):
        order = (i + count // 2 + np.arange(count)) % count
        order = order[~same[i][order]]
        near = order[languages[order] == languages[i]]
        found.append(near[0] if near.size else order[0] if order.size else -1)
    return np.array(found, int)
