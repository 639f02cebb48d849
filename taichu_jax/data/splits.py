"""Which pictures and which recordings are held out. Decided by hash: the same on every machine.

Two different questions. `test` and `validation` hold out whole pictures: new concepts.
`test_recordings` holds out recordings of training pictures: new voices of known concepts.
"""

import collections
import dataclasses
import hashlib

from taichu_jax.data.items import SPLITS, Item
from taichu_jax.errors import UserError

BIG_LANGUAGES = ("bg", "ca", "es", "fr", "ro", "ru")  # each with about 900 recordings
FULL = 961  # pictures of the full collection, of which TEST and VALIDATION are held out
TEST, VALIDATION = 80, 40
RECORDINGS = 0.08  # share of the training recordings that are held out


def assign(items: list[Item]) -> dict[str, list[Item]]:
    """{split: its items, sorted by id}, without empty splits.

    Concepts stay whole. Held out are the pictures with recordings in the most of BIG_LANGUAGES
    (for the full collection: in all six), in the order of their concepts' hashes; as many as the
    full collection's share. Items that name a split keep it, with all of their concept.

    Raises:
      UserError: one concept is given to two splits.
    """
    concepts: dict[str, list[Item]] = collections.defaultdict(list)
    for item in sorted(items, key=lambda item: item.id):
        concepts[item.concept].append(item)
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    free = []
    for concept, group in concepts.items():
        given = {item.split for item in group if item.split}
        if len(given) > 1:
            names = ", ".join(item.id for item in group)
            raise UserError(f"{names}: show the same thing but are in splits {sorted(given)}")
        if given:
            splits[given.pop()] += group
        else:
            free.append(concept)
    if all(items and item.split is None for item in items):
        free.sort(key=lambda concept: (-_spoken(concepts[concept]), fraction(concept)))
        for split, share in (("test", TEST / FULL), ("validation", VALIDATION / FULL)):
            wanted = min(round(share * FULL), round(share * len(items)))
            for concept in list(free):
                if len(splits[split]) + len(concepts[concept]) <= wanted:
                    splits[split] += concepts[concept]
                    free.remove(concept)
    splits["train"] += [item for concept in free for item in concepts[concept]]
    if not splits["test_recordings"]:
        splits["train"], splits["test_recordings"] = _hold_out_recordings(splits["train"])
    for group in splits.values():
        group.sort(key=lambda item: item.id)
    return {split: group for split, group in splits.items() if group}


def fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def _spoken(group: list[Item]) -> int:
    """Of BIG_LANGUAGES, those in which every picture of the group is read aloud."""
    return sum(all(lang in item.recordings for item in group) for lang in BIG_LANGUAGES)


def _hold_out_recordings(train: list[Item]) -> tuple[list[Item], list[Item]]:
    kept, held_out = [], []
    for item in train:
        out = {
            lang: path
            for lang, path in item.recordings.items()
            if fraction(f"{item.id} {lang}") < RECORDINGS
        }
        rest = {lang: path for lang, path in item.recordings.items() if lang not in out}
        kept.append(dataclasses.replace(item, recordings=rest))
        if out:
            held_out.append(dataclasses.replace(item, recordings=out, effect=None))
    return kept, held_out
