"""Where in the picture is the thing? A linear map on every patch.

The opacity of a picture is the truth: a patch is foreground if the thing covers more than half of it. The
picture lies on a plain colour drawn by its name, since white would give the background away. The number
is the intersection over union of the foreground, counted over all patches of all test pictures. Where the
states would not fit into memory patches are drawn, as many from each picture. Simplest guess: all is
foreground.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.evals import classify
from taichu_jax.probing.baselines import patch_of
from taichu_jax.probing.collect import affordable, passed
from taichu_jax.probing.encoder import Encoder, every_layer
from taichu_jax.probing.examples import TEST, TRAIN
from taichu_jax.probing.heads import weighted_sum
from taichu_jax.probing.heads.fitting import cross_entropy
from taichu_jax.probing.readers import PictureReader
from taichu_jax.probing.scratch import Head, from_scratch
from taichu_jax.probing.tasks.base import SCRATCH, Study, best, curve, result, row

LINEAR, WEIGHTED = "linear", "weighted sum"
HEADS = (LINEAR, WEIGHTED)
PATCHES = 20_000  # that are learnt from, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """See the module's docstring."""

    test_split: str = TEST

    def run(self, study: Study) -> dict[str, Any]:
        """IoU of all systems."""
        reader = study.encoder.reader
        assert isinstance(reader, PictureReader)
        coloured = dataclasses.replace(reader, coloured=True)
        study = study.reading(study.encoder.reading(coloured))
        patch = patch_of(study.encoder)
        train, test = (
            _transparent(study, study.usable(study.split(split)))
            for split in (TRAIN, self.test_split)
        )
        if len(train) < 2 or not test:
            raise UserError(
                f"{study.examples.name}: segmentation needs pictures with transparent parts, in a "
                f"training and a test split; found {len(train)} and {len(test)}"
            )
        truth, test_truth = (_truth(study, rows, patch) for rows in (train, test))
        development, systems = study.development(train), study.systems(train)
        largest = max(sum(encoder.widths) for encoder in systems.values())
        room = max(1, affordable(largest) // (len(train) + len(test)))  # patches of a picture
        draw = np.random.default_rng(study.seed)
        chosen = _drawn(draw, truth, min(room, max(1, PATCHES // len(train))))
        asked = _drawn(draw, test_truth, room)
        found = _Asked(train, test, truth, test_truth, chosen, asked, development)

        share = intersection_over_union(np.ones_like(asked), found.asked_truth)
        rows = [row("all is foreground", "baseline", dict.fromkeys(HEADS, share))]
        curves = []
        for name, encoder in systems.items():
            study.say(name)
            line, seen = _system(study, found, name, encoder)
            rows.append(line)
            curves.append(seen)
        if study.scratch_steps:
            study.say(SCRATCH)
            guess = np.take_along_axis(_scratch(study, found), asked, 1)
            score = intersection_over_union(guess, found.asked_truth)
            rows.insert(-1, row(SCRATCH, "baseline", {LINEAR: score}, steps=study.scratch_steps))
        return result(
            f"segmentation of patches of {patch} pixels ({self.test_split})",
            "intersection over union of the foreground in percent",
            HEADS,
            rows,
            curves,
            train=len(train),
            development=int(development.sum()),
            test=len(test),
        )


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What every system is asked.

    Attributes:
      train, test: rows.
      truth, test_truth: bool [N, P], true for foreground.
      chosen, asked: int [N, K], the patches of each picture that are learnt from, and asked.
      development: bool [N], of the training pictures.
    """

    train: list[int]
    test: list[int]
    truth: np.ndarray
    test_truth: np.ndarray
    chosen: np.ndarray
    asked: np.ndarray
    development: np.ndarray

    @property
    def asked_truth(self) -> np.ndarray:
        """bool [M, K]."""
        return np.take_along_axis(self.test_truth, self.asked, 1)


def _drawn(draw: np.random.Generator, truth: np.ndarray, count: int) -> np.ndarray:
    """int [N, K]: at most `count` patches of each picture."""
    return np.stack([draw.permutation(truth.shape[1])[:count] for _ in truth])


def intersection_over_union(guess: np.ndarray, truth: np.ndarray) -> float:
    """Of two bool arrays, in percent; 100 where both are empty."""
    guess, truth = guess.astype(bool), truth.astype(bool)
    either = (guess | truth).sum()
    return 100.0 * float((guess & truth).sum() / either) if either else 100.0


def _transparent(study: Study, rows: Sequence[int]) -> list[int]:
    """The pictures that are not opaque everywhere before they are placed on a square."""
    found = []
    for i in rows:
        alpha = study.examples.canvas(i, study.encoder.reader.shapes()[0][0][0])[..., 3]
        filled = alpha[alpha.any(1)][:, alpha.any(0)]
        if filled.size and (filled < 128).any():
            found.append(i)
    return found


def _truth(study: Study, rows: Sequence[int], patch: int) -> np.ndarray:
    reader: Any = study.encoder.reader
    found = []
    for i in rows:
        opaque = reader.opaque(study.examples, i)
        side = opaque.shape[0] // patch
        found.append(opaque.reshape(side, patch, side, patch).mean((1, 3)).reshape(-1) > 0.5)
    return np.stack(found)


def _system(study: Study, found: _Asked, name: str, encoder: Encoder):
    widths, dev = encoder.widths, found.development
    states = _patches(study, encoder, found.train, found.chosen)
    test_states = _patches(study, encoder, found.test, found.asked)
    truth = np.take_along_axis(found.truth, found.chosen, 1)
    test_truth = found.asked_truth

    def iou(layer, rows, wanted, wanted_truth):
        train = _flat(states[layer][rows])
        guess = classify.linear_probe(train, truth[rows].reshape(-1), wanted)
        return intersection_over_union(guess, wanted_truth.reshape(-1))

    values = [
        iou(layer, ~dev, _flat(states[layer][dev]), truth[dev]) for layer in range(len(widths))
    ]
    layer = best(values)
    scores = {LINEAR: iou(layer, slice(None), _flat(test_states[layer]), test_truth)}
    layers = {LINEAR: encoder.layer_names[layer]}
    kind = "encoder" if name == study.encoder.name else "baseline"
    seen = curve(name, LINEAR, encoder, values)
    if len(widths) == 1:
        return row(name, kind, scores, layers), seen
    same = [i for i, width in enumerate(widths) if width == widths[-1]]
    summed = weighted_sum.predict(
        np.stack([_flat(states[i]) for i in same], 1),
        truth.reshape(-1).astype(np.int64),
        np.repeat(dev, truth.shape[1]),
        np.stack([_flat(test_states[i]) for i in same], 1),
        2,
        study.seed,
    )
    scores[WEIGHTED] = intersection_over_union(summed.labels, test_truth.reshape(-1))
    shares = {encoder.layer_names[i]: float(x) for i, x in zip(same, summed.shares, strict=True)}
    return row(name, kind, scores, layers, shares=shares), seen


def _flat(states: np.ndarray) -> np.ndarray:
    return states.reshape(-1, states.shape[-1]).astype(np.float32)


def _patches(study: Study, encoder: Encoder, rows, chosen: np.ndarray) -> list[np.ndarray]:
    """float16 [N, K, D] of every layer: of each picture its chosen patches, picked batch by batch."""
    parts: list[list[np.ndarray]] = []
    start = 0
    for states in passed(encoder, study.examples, rows, _grid(round(encoder.shapes.rate))):
        some = chosen[start : start + len(states[0])]
        start += len(states[0])
        parts.append([np.take_along_axis(x, some[..., None], 1) for x in states])
    return [np.concatenate(layer) for layer in zip(*parts, strict=True)]


@functools.cache
def _grid(side: int):
    """Reads the patches' states of every layer, without what stands before them (a class token)."""

    def read(encoded, arrays):
        del arrays
        return tuple(x[:, -(side**2) :].astype(jnp.float16) for x in every_layer(encoded))

    return read


def _scratch(study: Study, found: _Asked) -> np.ndarray:
    """bool [M, P]: the guesses for every patch of the test pictures."""
    side = round(study.encoder.shapes.rate)

    def read(encoded, arrays):
        del arrays
        return encoded.tokens[:, -(side**2) :]

    logits, _ = from_scratch(
        study.encoder,
        Head(2, read, _loss),
        study.examples,
        found.train,
        found.truth.astype(np.int32),
        found.test,
        steps=study.scratch_steps,
        seed=study.seed,
    )
    return logits.argmax(-1).astype(bool)


def _loss(logits, encoded, truth) -> jax.Array:
    del encoded
    return cross_entropy(logits, truth)
