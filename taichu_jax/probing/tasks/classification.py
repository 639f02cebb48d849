"""One label for a whole example: a language, a category, whatever a column of one's own data says.

Heads: logistic regression and 20 nearest neighbours on the mean over the tokens of every layer, an
attentive probe on the tokens of the layer that is best for the first, and a weighted sum of all layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.evals import classify
from taichu_jax.models.layers import masked_mean
from taichu_jax.probing.collect import pooled, tokens
from taichu_jax.probing.encoder import Encoder
from taichu_jax.probing.examples import TEST
from taichu_jax.probing.heads import attentive, weighted_sum
from taichu_jax.probing.heads.fitting import cross_entropy
from taichu_jax.probing.scratch import Head, from_scratch
from taichu_jax.probing.tasks import base
from taichu_jax.probing.tasks.base import SCRATCH, Labelled, Study, best, curve, labelled, row

LINEAR, NEAR, ATTENTIVE, WEIGHTED = "linear", "k-NN", "attentive", "weighted sum"
HEADS = (LINEAR, NEAR, ATTENTIVE, WEIGHTED)
READ_BY = {LINEAR: classify.linear_probe, NEAR: classify.nearest_neighbours}
Chance = Callable[[Labelled], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """See the module's docstring.

    Attributes:
      column: of the rows' labels.
      test_split: what is asked.
      note: what a reader of the numbers should know.
    """

    column: str
    test_split: str = TEST
    note: str = ""

    def run(self, study: Study) -> dict[str, Any]:
        """Accuracies of all systems."""

        def label(i):
            return study.examples.rows[i].labels.get(self.column)

        found = labelled(study, label, self.test_split)
        result = classified(study, found, self.column, self.test_split)
        result["notes"] += [self.note] if self.note else []
        return result


def classified(
    study: Study, found: Labelled, column: str, split: str, chance: Chance | None = None
) -> dict[str, Any]:
    """The table of a classification.

    Args:
      chance: more simple guesses, name -> accuracy.
    """
    guesses = {"commonest label": classify.majority(found.labels, found.test_labels)}
    guesses |= chance(found) if chance else {}
    rows = [row(k, "baseline", dict.fromkeys(HEADS, v)) for k, v in guesses.items()]
    curves = []
    for name, encoder in study.systems(found.train).items():
        study.say(name)
        line, seen = _system(study, found, name, encoder)
        rows.append(line)
        curves += seen
    if study.scratch_steps:
        study.say(SCRATCH)
        score = classify.accuracy(_scratch(study, found), found.test_labels)
        rows.insert(-1, row(SCRATCH, "baseline", {LINEAR: score}, steps=study.scratch_steps))
    return base.result(
        f"{column}, {len(found.classes)} classes ({split})",
        "accuracy in percent",
        HEADS,
        rows,
        curves,
        train=len(found.train),
        development=int(found.development.sum()),
        test=len(found.test),
        notes=found.notes(),
    )


def _system(study: Study, found: Labelled, name: str, encoder: Encoder):
    """(its line, its curves)."""
    dev, fit, labels = found.development, ~found.development, found.labels
    train = pooled(encoder, study.examples, found.train)
    test = pooled(encoder, study.examples, found.test)
    scores, layers, curves, chosen = {}, {}, [], {}
    for head, predict in READ_BY.items():
        values = [
            classify.accuracy(_read(predict, x[fit], labels[fit], x[dev]), labels[dev])
            for x in train
        ]
        chosen[head] = best(values)
        guess = _read(predict, train[chosen[head]], labels, test[chosen[head]])
        scores[head] = classify.accuracy(guess, found.test_labels)
        layers[head] = encoder.layer_names[chosen[head]]
        curves.append(curve(name, head, encoder, values))

    classes, layer = len(found.classes), chosen[LINEAR]
    guess = attentive.predict(
        tokens(encoder, study.examples, found.train, layer),
        labels,
        dev,
        tokens(encoder, study.examples, found.test, layer),
        classes,
        study.seed,
    )
    scores[ATTENTIVE] = classify.accuracy(guess, found.test_labels)
    layers[ATTENTIVE] = encoder.layer_names[layer]
    kind = "encoder" if name == study.encoder.name else "baseline"
    if len(train) == 1:  # a sum of one layer would be the linear probe again
        return row(name, kind, scores, layers), curves
    same = [i for i, x in enumerate(train) if x.shape[-1] == train[-1].shape[-1]]
    summed = weighted_sum.predict(
        np.stack([train[i] for i in same], 1),
        labels,
        dev,
        np.stack([test[i] for i in same], 1),
        classes,
        study.seed,
    )
    scores[WEIGHTED] = classify.accuracy(summed.labels, found.test_labels)
    shares = {encoder.layer_names[i]: float(x) for i, x in zip(same, summed.shares, strict=True)}
    return row(name, kind, scores, layers, shares=shares), curves


def _read(predict, train, labels, test) -> np.ndarray:
    return predict(train.astype(np.float64), labels, test.astype(np.float64))


def _scratch(study: Study, found: Labelled) -> np.ndarray:
    head = Head(len(found.classes), _mean, _loss)
    logits, _ = from_scratch(
        study.encoder,
        head,
        study.examples,
        found.train,
        found.labels.astype(np.int32),
        found.test,
        steps=study.scratch_steps,
        seed=study.seed,
    )
    return logits.argmax(-1)


def _mean(encoded, arrays) -> jax.Array:
    del arrays
    return masked_mean(encoded.tokens.astype(jnp.float32), encoded.mask)


def _loss(logits, encoded, labels) -> jax.Array:
    del encoded
    return cross_entropy(logits, labels)
