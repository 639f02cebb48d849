"""A tag for every word (parts of speech, names): a linear map on the mean over the word's pieces.

For files with words and tags only; the share of words that are tagged rightly. Baselines: the commonest
tag, and the commonest tag of that word in the training texts, which is hard to beat where words repeat.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.evals import classify
from taichu_jax.probing.collect import gathered
from taichu_jax.probing.encoder import Encoder, every_layer
from taichu_jax.probing.examples import TEST, TRAIN
from taichu_jax.probing.heads import weighted_sum
from taichu_jax.probing.readers import TextReader
from taichu_jax.probing.scratch import Head, from_scratch
from taichu_jax.probing.tasks.base import SCRATCH, Study, best, curve, result, row

WORDS = 64  # of a text, at most
LINEAR, WEIGHTED = "linear", "weighted sum"
HEADS = (LINEAR, WEIGHTED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagging:
    """See the module's docstring."""

    test_split: str = TEST

    def run(self, study: Study) -> dict[str, Any]:
        """Accuracies of all systems."""
        reader = study.encoder.reader
        assert isinstance(reader, TextReader)
        tagged = dataclasses.replace(reader, tagged=True)
        study = study.reading(study.encoder.reading(tagged))
        train, test = (study.usable(study.split(s)) for s in (TRAIN, self.test_split))
        words, tags, places = _tagged(study, train)
        test_words, test_tags, test_places = _tagged(study, test)
        names = sorted(set(tags))
        number = {name: n for n, name in enumerate(names)}
        if len(names) < 2 or not test_tags:
            raise UserError(
                f"{study.examples.name}: tagging needs words with two tags or more in its training "
                f"split, and a test split; found {len(names)} tags, {len(test_tags)} test words"
            )
        labels = np.array([number[tag] for tag in tags])
        truth = np.array(
            [number.get(tag, -1) for tag in test_tags]
        )  # an unknown tag is always wrong
        held = study.development(train)
        dev = held[[example for example, _ in places]]

        common = classify.majority(labels, truth)
        usual = classify.accuracy(_usual(words, labels, test_words), truth)
        rows = [
            row("commonest tag", "baseline", dict.fromkeys(HEADS, common)),
            row("commonest tag of the word", "baseline", dict.fromkeys(HEADS, usual)),
        ]
        curves = []
        for name, encoder in study.systems(train).items():
            study.say(name)
            states = _at(gathered(encoder, study.examples, train, word_means), places)
            asked = _at(gathered(encoder, study.examples, test, word_means), test_places)
            values = [
                classify.accuracy(classify.linear_probe(x[~dev], labels[~dev], x[dev]), labels[dev])
                for x in states
            ]
            layer = best(values)
            guess = classify.linear_probe(states[layer], labels, asked[layer])
            scores = {LINEAR: classify.accuracy(guess, truth)}
            kind = "encoder" if name == study.encoder.name else "baseline"
            layers, more = {LINEAR: encoder.layer_names[layer]}, {}
            if len(states) > 1:
                scores[WEIGHTED], more["shares"] = _summed(
                    study, encoder, states, labels, dev, asked, truth, len(names)
                )
            rows.append(row(name, kind, scores, layers, **more))
            curves.append(curve(name, LINEAR, encoder, values))
        if study.scratch_steps:
            study.say(SCRATCH)
            score = classify.accuracy(
                _scratch(study, train, places, labels, len(names), test, test_places), truth
            )
            rows.insert(-1, row(SCRATCH, "baseline", {LINEAR: score}, steps=study.scratch_steps))
        return result(
            f"tags of words, {len(names)} tags ({self.test_split})",
            "words tagged rightly in percent",
            HEADS,
            rows,
            curves,
            train=len(train),
            development=int(held.sum()),
            test=len(test),
            notes=[f"{len(labels):,} words to learn from, {len(truth):,} asked"],
        )


def word_means(encoded, arrays) -> tuple[jax.Array, ...]:
    """Means [B, WORDS, D] over the pieces of every word, of every layer."""
    owner = arrays[2]
    mine = jax.nn.one_hot(owner, WORDS, axis=1)  # [B, WORDS, L]; all zeros for what is no word
    count = jnp.maximum(mine.sum(2, keepdims=True), 1)
    return tuple(
        jnp.einsum("bwl,bld->bwd", mine, x.astype(jnp.float32)) / count
        for x in every_layer(encoded)
    )


def _tagged(study: Study, rows: Sequence[int]):
    """(words, tags, (example, place of the word)) of the words that the encoder sees."""
    words, tags, places = [], [], []
    for example, i in enumerate(rows):
        seen = set(study.encoder.reader.read(study.examples, i)[2].tolist())
        for place, (word, tag) in enumerate(zip(*study.examples.words(i), strict=True)):
            if place in seen and place < WORDS:
                words.append(word)
                tags.append(tag)
                places.append((example, place))
    return words, tags, places


def _at(states, places) -> list[np.ndarray]:
    where = np.array(places)
    return [x[where[:, 0], where[:, 1]] for x in states]


def _usual(words: Sequence[str], labels: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    everything: collections.Counter = collections.Counter(labels.tolist())
    for word, label in zip(words, labels.tolist(), strict=True):
        counts[word][label] += 1
    return np.array([(counts.get(x) or everything).most_common(1)[0][0] for x in asked])


def _summed(study, encoder: Encoder, states, labels, dev, asked, truth, classes):
    """(accuracy, share of every layer) of the weighted sum."""
    same = [i for i, x in enumerate(states) if x.shape[-1] == states[-1].shape[-1]]
    train, test = (np.stack([some[i] for i in same], 1) for some in (states, asked))
    found = weighted_sum.predict(train, labels, dev, test, classes, study.seed)
    shares = {encoder.layer_names[i]: float(x) for i, x in zip(same, found.shares, strict=True)}
    return classify.accuracy(found.labels, truth), shares


def _scratch(study: Study, train, places, labels, classes, test, test_places) -> np.ndarray:
    targets = np.full((len(train), WORDS), -1, np.int32)
    where = np.array(places)
    targets[where[:, 0], where[:, 1]] = labels

    def read(encoded, arrays):
        return word_means(encoded, arrays)[-1]

    logits, _ = from_scratch(
        study.encoder,
        Head(classes, read, _loss),
        study.examples,
        train,
        targets,
        test,
        steps=study.scratch_steps,
        seed=study.seed,
    )
    return _at([logits], test_places)[0].argmax(-1)


def _loss(logits, encoded, targets) -> jax.Array:
    del encoded
    known = targets >= 0
    scores = jax.nn.log_softmax(logits.astype(jnp.float32))
    picked = jnp.take_along_axis(scores, jnp.maximum(targets, 0)[..., None], -1)[..., 0]
    return -jnp.where(known, picked, 0).sum() / jnp.maximum(known.sum(), 1)
