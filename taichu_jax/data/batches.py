"""A stream bound to its data: random access to training batches, and one pass for evaluation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from taichu_jax.data.items import Damaged
from taichu_jax.data.languages import INDEX
from taichu_jax.data.parts import Batch, Example, Fields, Part, Rng, Source
from taichu_jax.data.sampler import Sampler
from taichu_jax.errors import UserError

SamplerOf = Callable[[int], Sampler]  # the sampler of a step
ENDLESS = 2**31 - 1  # steps of a training stream
_COIN = 2**32 - 2  # marks the generator of a step's coin; rows are smaller numbers
ATTEMPTS = 20  # examples tried for a row before the data set is given up as broken
LABELS: Fields = {name: ((), np.int32) for name in ("concept", "category", "lang", "example")}


def blank(rows: int, fields: Fields) -> Batch:
    """A batch of zeros."""
    return {name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in fields.items()}


class RandomAccess(Protocol):
    """What Grain reads batches from."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Batch: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filler:
    """Writes examples into batches."""

    source: Source
    examples: Sequence[Example]
    parts: Sequence[Part]

    def fields(self) -> Fields:
        """Shapes and types of one example, labels included."""
        return LABELS | {k: v for part in self.parts for k, v in part.fields().items()}

    def fill(self, batch: Batch, row: int, chosen: int, rng: Rng) -> bool:
        """Writes example `chosen` into a blank row; False, row blank again: it is damaged."""
        example = self.examples[chosen]
        entry = self.source.entries[example.row]
        try:
            for part in self.parts:
                part.fill(batch, row, example, self.source, rng)
        except Damaged as damage:
            self.source.report(example.row, damage)
            for values in batch.values():
                values[row] = 0
            return False
        batch["concept"][row], batch["category"][row] = entry.concept, entry.category
        batch["lang"][row], batch["example"][row] = INDEX[example.lang], chosen
        return True


@dataclasses.dataclass(frozen=True)
class Always:
    """The same sampler at every step. (A class, not a lambda: worker processes pickle it.)"""

    sampler: Sampler

    def __call__(self, step: int) -> Sampler:
        return self.sampler


@dataclasses.dataclass(frozen=True)
class Coin:
    """`tails` with the given probability, else `heads`."""

    heads: Sampler
    tails: Sampler
    probability: float
    seed: int

    def __call__(self, step: int) -> Sampler:
        rng = np.random.default_rng([self.seed, step, _COIN])
        return self.tails if rng.random() < self.probability else self.heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Element `step` is the step's batch, of which this process has the rows `rows`."""

    filler: Filler
    sampler: SamplerOf
    seed: int
    rows: range
    augment: bool

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> Batch:
        sampler = self.sampler(step)
        order, batch = sampler.batch(step), blank(len(self.rows), self.filler.fields())
        for position, row in enumerate(self.rows):
            chosen = int(order[row])
            for attempt in range(1, ATTEMPTS + 1):
                rng = np.random.default_rng([self.seed, step, row]) if self.augment else None
                if self.filler.fill(batch, position, chosen, rng):
                    break
                chosen = sampler.another(step, row, attempt)
            else:
                raise UserError(
                    f"{ATTEMPTS} examples drawn in a row are damaged; prepare the data again"
                )
        return batch


def epoch(filler: Filler, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order, without augmentation; the last batch is padded.

    `valid` bool [B] is False in rows of padding. Damaged examples are left out and reported.
    """
    batch, used = blank(batch_size, filler.fields()), 0
    for chosen in range(len(filler.examples)):
        used += filler.fill(batch, used, chosen, None)
        if used == batch_size:
            yield batch | {"valid": np.ones(batch_size, np.bool_)}
            batch, used = blank(batch_size, filler.fields()), 0
    if used:
        yield batch | {"valid": np.arange(batch_size) < used}


def own_rows(batch_size: int, process_index: int, process_count: int) -> range:
    """The rows of a global batch that a process makes.

    Raises:
      UserError: the batch cannot be shared out evenly.
    """
    if batch_size % process_count:
        raise UserError(f"batch_size={batch_size} must be a multiple of {process_count} processes")
    return range(process_index, batch_size, process_count)
