"""A stream bound to its data: random access to training batches, and one pass for evaluation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from taichu_jax.data.damage import Report
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

    def fill(
        self, batch: Batch, row: int, chosen: int, rng: Rng, report: Report | None = None
    ) -> bool:
        """Writes example `chosen` into a blank row; False, row blank again: it is damaged.

        Damage is reported to the source if not to `report`.
        """
        example = self.examples[chosen]
        entry = self.source.entries[example.row]
        try:
            for part in self.parts:
                part.fill(batch, row, example, self.source, rng)
        except Damaged as damage:
            (report or self.source.report)(example.row, damage)
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
    """Element `step` is the step's batch, of which this process has the rows `rows`.

    A row's numbers come from (seed, step, its place in the global batch), so they are the same whoever
    makes it.
    """

    filler: Filler
    sampler: SamplerOf
    seed: int
    rows: Sequence[int]
    augment: bool

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> Batch:
        return self.make(step, self.filler.source.report)

    def make(self, step: int, report: Report) -> Batch:
        """The batch of a step; each damaged example that was drawn for it is reported."""
        sampler = self.sampler(step)
        order, batch = sampler.batch(step), blank(len(self.rows), self.filler.fields())
        for position, row in enumerate(self.rows):
            chosen = int(order[row])
            for attempt in range(1, ATTEMPTS + 1):
                rng = np.random.default_rng([self.seed, step, row]) if self.augment else None
                if self.filler.fill(batch, position, chosen, rng, report):
                    break
                if attempt < ATTEMPTS:
                    chosen = sampler.another(step, row, attempt)
            else:
                raise all_damaged(self.filler, chosen)
        return batch


def all_damaged(filler: Filler, chosen: int) -> UserError:
    """What to say after ATTEMPTS damaged examples, of which `chosen` is one."""
    name = filler.source.entries[filler.examples[chosen].row].id
    return UserError(
        f"{ATTEMPTS} examples drawn in a row are damaged, one of them is {name}; "
        "prepare the data again"
    )


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


def own_rows(batch_size: int, rows: Sequence[int] | None) -> tuple[int, ...]:
    """The rows of a global batch that this process makes: `rows`, or all.

    Raises:
      ValueError: they are not rows of the batch in ascending order.
    """
    if rows is None:
        return tuple(range(batch_size))
    wanted = tuple(map(int, rows))
    if list(wanted) != sorted(set(wanted) & set(range(batch_size))):
        raise ValueError(f"rows={wanted}: must ascend, from 0 to {batch_size - 1}")
    return wanted
