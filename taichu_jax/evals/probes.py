"""Probes of frozen encoders: what each layer knows, beside what can be had without training.

Category: the folder of a picture (16 in the stamps), learnt on training pictures, asked of pictures
that were held out. Language: which language a voice speaks, learnt on training recordings, asked of
held-out ones; in the stamps each language has mostly one speaker, so this is also who speaks.
Features are the mean over the real tokens of a layer. Baselines: the commonest label, the raw input
(pixels averaged to 16 x 16; mean and deviation of the log-mel bands, not normalised) and the same
encoder with the weights it would have started from.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, ClassVar

import numpy as np

from taichu_jax.data.audio import log_mel
from taichu_jax.evals import classify
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.hidden import pooled, trained_and_not
from taichu_jax.evals.media import Originals

RAW_SIDE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """A label of held-out examples from every layer of a frozen encoder.

    Attributes:
      stream: the examples; its split is replaced.
      encoder: the network's name.
      label: the batch field with the classes.
      limit: training examples that are used, evenly spread.
    """

    stream: Any
    encoder: str
    label: str
    train_split: str = "train"
    test_split: str = "test"
    limit: int = 1000

    modality: ClassVar[str]
    raw_name: ClassVar[str]

    def raw(self, run, stream, fields) -> np.ndarray:
        """The input without any network, [N, ...]; a baseline."""
        raise NotImplementedError(f"{type(self).__name__} has no raw features")

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Accuracies of every layer and of the baselines."""
        del out_dir
        return _probe(self, run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoryProbe(Probe):
    """The category of a held-out picture; `stream` is a `Pictures` stream."""

    encoder: str = "image"
    label: str = "category"

    modality = "image"
    raw_name = "pixels"

    def raw(self, run, stream, fields) -> np.ndarray:
        """The picture, shrunk."""
        del run, stream
        return _pooled_pixels(fields["image"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageProbe(Probe):
    """The language of a held-out recording; `stream` has spectrograms or waveforms."""

    encoder: str = "audio"
    label: str = "lang"
    test_split: str = "test_recordings"
    limit: int = 1200

    modality = "audio"
    raw_name = "mean and deviation of log-mel"

    def raw(self, run, stream, fields) -> np.ndarray:
        """Statistics of the spectrogram."""
        return _band_statistics(run, stream, fields["example"])


def _probe(self: Probe, run) -> dict[str, Any]:
    both = trained_and_not(run, self.encoder, self.modality, pooled)

    def gather(stream):
        fields, means = collect(run, stream, both, (self.label, "example", *kept))
        raw = self.raw(run, stream, fields)
        return fields[self.label], means["trained"], means["untrained"][-1], raw

    kept = ("image",) if self.modality == "image" else ()
    train = thinned(dataclasses.replace(self.stream, split=self.train_split), self.limit)
    test = dataclasses.replace(self.stream, split=self.test_split)
    labels, trained, random, unnormalised = gather(train)
    test_labels, test_trained, test_random, test_unnormalised = gather(test)

    def row(name, features, test_features, kind):
        features, test_features = (x.astype(np.float64) for x in (features, test_features))
        linear = classify.linear_probe(features, labels, test_features)
        near = classify.nearest_neighbours(features, labels, test_features)
        return {
            "features": name,
            "kind": kind,
            "linear": classify.accuracy(linear, test_labels),
            "knn": classify.accuracy(near, test_labels),
        }

    chance = classify.majority(labels, test_labels)
    rows = [
        {"features": "commonest label", "kind": "baseline", "linear": chance, "knn": chance},
        row(self.raw_name, unnormalised, test_unnormalised, "baseline"),
        row("untrained encoder, last layer", random, test_random, "baseline"),
    ]
    for i, (features, test_features) in enumerate(zip(trained, test_trained, strict=True)):
        last = i == len(trained) - 1
        name = "input" if i == 0 else "last, normalised" if last else f"block {i}"
        rows.append(row(name, features, test_features, "layer"))
    return {
        "task": self.label,
        "train": int(labels.size),
        "test": int(test_labels.size),
        "train_split": self.train_split,
        "test_split": self.test_split,
        "classes": int(np.unique(labels).size),
        "rows": rows,
    }


def _pooled_pixels(images) -> np.ndarray:
    """[N, RAW_SIDE * RAW_SIDE * 3]: pictures averaged to a side of RAW_SIDE pixels."""
    count, side, _, colours = images.shape
    block = max(1, side // RAW_SIDE)
    cut = images[:, : side // block * block, : side // block * block]
    grid = cut.reshape(count, side // block, block, side // block, block, colours)
    return grid.mean((2, 4)).reshape(count, -1)


def _band_statistics(run, stream, examples) -> np.ndarray:
    """[N, 2 * bands]: mean and deviation over time of the log-mel bands, not normalised."""
    originals = Originals(run, stream)
    spectra = (log_mel(originals.wave(i)) for i in examples)
    return np.stack([np.concatenate([x.mean(0), x.std(0)]) for x in spectra])
