"""A few minutes of recordings out of a split: a fixed draw, for learning from little that is labelled."""

import hashlib
from collections.abc import Sequence

from taichu_jax.data.audio import RATE
from taichu_jax.data.items import Damaged
from taichu_jax.data.parts import Example, Source


def within_minutes(
    source: Source,
    examples: Sequence[Example],
    minutes: float,
    *,
    seed: int = 0,
    trim: bool = False,
) -> list[Example]:
    """The first recordings of a fixed order whose durations add up to at most `minutes`.

    The order is a hash of (seed, record, language): it does not depend on what else is there, and a
    smaller budget is part of a larger one. The draw ends with the first recording that would pass the
    budget. Only what is drawn is decoded. The examples stay in their own order.

    Args:
      trim: durations are those without silent ends, as the model hears them.
    """

    def place(example: Example) -> bytes:
        name = f"{seed} {source.entries[example.row].id} {example.lang}"
        return hashlib.sha256(name.encode()).digest()

    chosen, left = set(), round(60 * minutes * RATE)
    for example in sorted(examples, key=place):
        try:
            left -= len(source.wave(example.row, example.lang, trim))
        except Damaged as damage:
            source.report(example.row, damage)
            continue
        if left < 0:
            break
        chosen.add(example)
    return [example for example in examples if example in chosen]
