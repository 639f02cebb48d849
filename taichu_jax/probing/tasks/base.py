"""What tasks share: which examples they ask, the systems that are compared, and the form of a result.

The layer is chosen on a development part, a fifth of the training examples by groups; test examples are
asked once, with the chosen layer, after learning from all training examples. No number is measured on
what was learnt from.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.probing.baselines import raw
from taichu_jax.probing.collect import readable
from taichu_jax.probing.encoder import Encoder
from taichu_jax.probing.examples import TRAIN, Examples, Harm, fifth, thinned

FEWEST = 5  # training examples of a class that is asked for


@dataclasses.dataclass(frozen=True)
class Study:
    """One network and the examples it is asked about.

    Attributes:
      limit: training examples, and test examples, that are used at most, evenly spread.
      scratch_steps: of the encoder that is trained from nothing; 0: there is none.
      say: told what is computed.
    """

    encoder: Encoder
    examples: Examples
    harm: Harm
    limit: int = 1000
    scratch_steps: int = 0
    seed: int = 0
    say: Callable[[str], None] = lambda text: None

    def reading(self, encoder: Encoder) -> Study:
        """The same with an encoder that reads otherwise."""
        return dataclasses.replace(self, encoder=encoder)

    def usable(self, rows: Sequence[int]) -> list[int]:
        """At most `limit` of these rows, without damaged ones."""
        return readable(self.encoder, self.examples, thinned(rows, self.limit), self.harm)

    def split(self, split: str) -> list[int]:
        """All rows of a split, as they come."""
        return [i for i, row in enumerate(self.examples.rows) if row.split == split]

    def development(self, rows: Sequence[int]) -> np.ndarray:
        """bool [N]: the part of training rows on which choices are made."""
        return fifth([self.examples.rows[i].group for i in rows])

    def systems(self, train: Sequence[int]) -> dict[str, Encoder]:
        """What is compared, by name: baselines first."""
        return {
            raw_name(self.encoder): raw(self.encoder, self.examples, train),
            UNTRAINED: self.encoder.untrained(),
            self.encoder.name: self.encoder,
        }


NOTHING_LEARNT = "nothing is learnt, so there is nothing to train from scratch"
UNTRAINED, SCRATCH = "untrained weights", "trained from scratch"


def raw_name(encoder: Encoder) -> str:
    """What the raw input is called in tables."""
    from taichu_jax.probing.baselines import NAMES

    return f"raw input: {NAMES[encoder.modality]}"


class Task(Protocol):
    """A question; see `result` for what comes back."""

    def run(self, study: Study) -> dict[str, Any]:
        """The numbers of all systems.

        Raises:
          UserError: the examples do not allow it.
        """


@dataclasses.dataclass
class Labelled:
    """Training and test rows with numbers of classes."""

    train: list[int]
    test: list[int]
    labels: np.ndarray
    test_labels: np.ndarray
    classes: list[str]
    development: np.ndarray
    left_out: int

    def notes(self) -> list[str]:
        """What to tell of examples that were not asked."""
        if not self.left_out:
            return []
        few = f"a class with fewer than {FEWEST} training examples"
        return [f"{self.left_out:,} test examples of {few} not asked"]


def labelled(study: Study, label: Callable[[int], str | None], test_split: str) -> Labelled:
    """The rows that have a label, of classes with FEWEST training examples or more.

    Raises:
      UserError: fewer than two classes remain, or nothing to ask.
    """
    train = [i for i in study.split(TRAIN) if label(i)]
    test = [i for i in study.split(test_split) if label(i)]
    counts = collections.Counter(label(i) for i in train)
    classes = sorted(str(name) for name, count in counts.items() if count >= FEWEST)
    number = {name: n for n, name in enumerate(classes)}
    train = study.usable([i for i in train if label(i) in number])
    asked = [i for i in test if label(i) in number]
    left_out, asked = len(test) - len(asked), study.usable(asked)
    labels, test_labels = (
        np.array([number[str(label(i))] for i in rows], np.int64) for rows in (train, asked)
    )
    if np.unique(labels).size < 2 or not asked:
        raise UserError(
            f"{study.examples.name}: has {len(train)} training and {len(asked)} test examples of "
            f"{np.unique(labels).size} classes; needed: two classes of {FEWEST} training examples, and a "
            f"split {test_split!r}"
        )
    return Labelled(train, asked, labels, test_labels, classes, study.development(train), left_out)


def best(scores: Sequence[float], higher: bool = True) -> int:
    """The layer with the best development score, the first of equals."""
    return int(np.argmax(scores) if higher else np.argmin(scores))


def row(
    system: str,
    kind: str,
    scores: dict[str, float],
    layers: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A line of the table: scores by head, and the layer that each was read from.

    Args:
      kind: 'baseline' or 'encoder'.
    """
    return {"system": system, "kind": kind, "scores": scores, "layers": layers or {}, **more}


def curve(system: str, head: str, encoder: Encoder, values: Sequence[float]) -> dict[str, Any]:
    """Development scores of every layer, for the plot."""
    return {
        "system": system,
        "head": head,
        "layers": encoder.layer_names,
        "values": [float(x) for x in values],
    }


def result(
    title: str,
    measure: str,
    heads: Sequence[str],
    rows: list[dict[str, Any]],
    curves: list[dict[str, Any]],
    *,
    train: int,
    development: int,
    test: int,
    higher: bool = True,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What a task returns.

    Args:
      train: examples that were learnt from, `development` of them held out while choosing.
    """
    return {
        "title": title,
        "measure": measure,
        "better": "higher" if higher else "lower",
        "heads": list(heads),
        "rows": rows,
        "curves": curves,
        "train": train,
        "development": development,
        "test": test,
        "notes": [note for note in notes if note],
    }
