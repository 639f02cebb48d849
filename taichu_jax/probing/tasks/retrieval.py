"""Pictures by a picture: are the nearest training pictures of the same class?

Queries are test pictures, candidates all training pictures, ranked by the cosine of the means over the
tokens; right answers share the label. Nothing is learnt; the layer is chosen with development pictures
as queries and the other training pictures as candidates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from taichu_jax.evals import ranking
from taichu_jax.probing.collect import pooled
from taichu_jax.probing.examples import TEST
from taichu_jax.probing.tasks.base import NOTHING_LEARNT, Study, best, curve, labelled, result, row
from taichu_jax.probing.tasks.ranks import chance_average_precision, mean_average_precision

PRECISION, FIRST = "mAP", "R@1"
HEADS = (PRECISION, FIRST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """See the module's docstring.

    Attributes:
      column: of the labels.
    """

    column: str
    test_split: str = TEST

    def run(self, study: Study) -> dict[str, Any]:
        """Mean average precision of all systems."""
        found = labelled(
            study, lambda i: study.examples.rows[i].labels.get(self.column), self.test_split
        )
        dev, labels = found.development, found.labels
        right = found.test_labels[:, None] == labels[None]
        asked = right.any(1)  # thinning or damage may have taken a class away
        right = right[asked]
        within = labels[dev][:, None] == labels[~dev][None]
        chance = {
            PRECISION: chance_average_precision(right),
            FIRST: ranking.chance(right)[FIRST],
        }
        rows, curves = [row("random order", "baseline", chance)], []
        for name, encoder in study.systems(found.train).items():
            study.say(name)
            train = pooled(encoder, study.examples, found.train)
            test = [x[asked] for x in pooled(encoder, study.examples, found.test)]
            values = [mean_average_precision(cosine(x[dev], x[~dev]), within) for x in train]
            layer = best(values)
            similarity = cosine(test[layer], train[layer])
            scores = {
                PRECISION: mean_average_precision(similarity, right),
                FIRST: ranking.ranking(similarity, right)[FIRST],
            }
            kind = "encoder" if name == study.encoder.name else "baseline"
            layers = dict.fromkeys(HEADS, encoder.layer_names[layer])
            rows.append(row(name, kind, scores, layers))
            curves.append(curve(name, PRECISION, encoder, values))
        return result(
            f"retrieval by {self.column} ({self.test_split})",
            "mean average precision, and how often the nearest is right, in percent",
            HEADS,
            rows,
            curves,
            train=len(found.train),
            development=int(dev.sum()),
            test=len(right),
            notes=[*found.notes(), NOTHING_LEARNT],
        )


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, M] of vectors [N, D] and [M, D]."""
    return _unit(a.astype(np.float64)) @ _unit(b.astype(np.float64)).T


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
