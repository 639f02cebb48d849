"""Which examples make up the batch of a step: a pure function of (seed, step)."""

from typing import Protocol

import numpy as np

_ORDER = 2**32 - 1  # marks the generator of a step's order; rows are smaller numbers


class Sampler(Protocol):
    """Draws indices of examples."""

    def batch(self, step: int) -> np.ndarray:
        """Indices int64 [batch_size] of the step's examples, over all processes."""

    def another(self, step: int, row: int, attempt: int) -> int:
        """An example in place of a row's damaged one; attempts count from 1."""


class Contrasts:
    """Batches for contrastive learning: distinct things, as alike otherwise as they can be.

    With `same_language` all of a batch share a language, drawn in proportion to
    count ** temperature: the candidates then differ in what they mean, not in what language they
    are in. Languages with fewer concepts than a batch has rows go into one mixed pool (with the
    smallest of the others, if it is too small still). Without `same_language` there is only the
    mixed pool, in which a language's share is the same power.

    Within a batch no example comes twice, and no concept comes twice unless the pool has fewer
    concepts than the batch has rows; then all of them come before any comes again.
    """

    def __init__(
        self,
        members: np.ndarray,
        languages: np.ndarray,
        concepts: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        temperature: float = 0.5,
        same_language: bool = True,
    ):
        """`members` are the indices that may be drawn from `languages` and `concepts` int [N]."""
        self._concepts, self._batch_size, self._seed = concepts, batch_size, seed
        alone: list[np.ndarray] = []
        mixed: list[np.ndarray] = []
        for language in np.unique(languages[members]):
            pool = members[languages[members] == language]
            enough = len(np.unique(concepts[pool])) >= batch_size
            (alone if same_language and enough else mixed).append(pool)
        while mixed and alone and len(np.unique(concepts[np.concatenate(mixed)])) < batch_size:
            mixed.append(alone.pop(min(range(len(alone)), key=lambda i: len(alone[i]))))
        mass = [len(pool) ** temperature for pool in alone]
        self.pools: list[np.ndarray] = alone  # the mixed one, if there is one, is the last
        self._log_weights: list[np.ndarray | None] = [None] * len(alone)  # None: all equal
        if mixed:
            mass.append(sum(len(pool) ** temperature for pool in mixed))
            self.pools.append(np.concatenate(mixed))
            self._log_weights.append(
                np.concatenate([np.full(len(p), (temperature - 1) * np.log(len(p))) for p in mixed])
            )
        self.probabilities = np.array(mass) / sum(mass)  # of each pool

    def batch(self, step: int) -> np.ndarray:
        """Indices int64 [batch_size] of the step's examples, over all processes."""
        rng = np.random.default_rng([self._seed, step, _ORDER])
        order = self._shuffled(self._pool(rng), rng)
        # The first of each concept, in the drawn order; then the rest; then from the start again.
        _, first = np.unique(self._concepts[order], return_index=True)
        rest = np.delete(np.arange(len(order)), first)
        order = order[np.concatenate([np.sort(first), rest])]
        return np.resize(order, self._batch_size)

    def another(self, step: int, row: int, attempt: int) -> int:
        """An example of the same pool in place of a row's damaged one; attempts count from 1."""
        which = self._pool(np.random.default_rng([self._seed, step, _ORDER]))
        return int(
            np.random.default_rng([self._seed, step, row, attempt]).choice(self.pools[which])
        )

    def _pool(self, rng: np.random.Generator) -> int:
        return int(rng.choice(len(self.pools), p=self.probabilities))

    def _shuffled(self, which: int, rng: np.random.Generator) -> np.ndarray:
        pool, log_weights = self.pools[which], self._log_weights[which]
        if log_weights is None:
            return rng.permutation(pool)
        # Sorting by log weight + Gumbel noise draws without replacement in proportion to weight.
        return pool[np.argsort(-(log_weights + rng.gumbel(size=len(pool))), kind="stable")]


class Draws:
    """Independent draws: first a language in proportion to count ** temperature, then an example.

    Costs the same however many examples there are.
    """

    def __init__(self, languages: np.ndarray, *, batch_size: int, seed: int, temperature: float):
        """`languages` int [N]."""
        self._batch_size, self._seed = batch_size, seed
        self._sorted = np.argsort(languages, kind="stable")
        _, self._start, self._count = np.unique(
            languages[self._sorted], return_index=True, return_counts=True
        )
        mass = self._count**temperature
        self.probabilities = mass / mass.sum()  # of each language
        self._upto = np.cumsum(self.probabilities)[:-1]

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Indices int64 [count]."""
        language = np.searchsorted(self._upto, rng.random(count), side="right")
        return self._sorted[self._start[language] + rng.integers(0, self._count[language])]

    def batch(self, step: int) -> np.ndarray:
        """Indices int64 [batch_size] of the step's examples, over all processes."""
        return self.draw(np.random.default_rng([self._seed, step, _ORDER]), self._batch_size)

    def another(self, step: int, row: int, attempt: int) -> int:
        """An example in place of a row's damaged one; attempts count from 1."""
        return int(self.draw(np.random.default_rng([self._seed, step, row, attempt]), 1)[0])
