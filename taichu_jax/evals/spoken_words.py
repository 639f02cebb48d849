"""Words from voices, by a linear map: which written words does a held-out recording say?

From the mean and deviation over time of one layer's states, ridge regression predicts how often each
sequence of one to three characters occurs in the words (counted by scikit-learn, L2 norm 1, less their
mean). Recordings of held-out things are the queries, the words of the same language and split the
candidates, ranked by cosine.
Layer and strength of the ridge are chosen on the validation pictures. Chance is exact; log-mel and the
encoder's untrained states, treated in the same way, are the baselines.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.evals import ranking
from taichu_jax.evals.features import collect, thinned
from taichu_jax.evals.hidden import every_layer, trained_and_not
from taichu_jax.evals.media import Originals
from taichu_jax.models.layers import Encoded
from taichu_jax.ops.lengths import within

STRENGTHS = (1e-2, 1e-1, 1.0, 1e1, 1e2)
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpokenWords:
    """See the module's docstring.

    Attributes:
      stream: a `Recordings` stream; its split is replaced.
      encoder: the network's name.
      languages: whose recordings are asked; the map is learnt from these too, all in one.
      limit: training recordings that are used, evenly spread.
      log_mel: computes that baseline, which is the same for every run on the same data.
    """

    stream: Any
    encoder: str = "speech"
    languages: tuple[str, ...] = ("fr", "ro", "ru", "bg", "ca", "es")
    limit: int = 2000
    log_mel: bool = True

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """R@1, R@10 and median rank of the trained encoder and of the baselines."""
        del out_dir
        stream = dataclasses.replace(self.stream, languages=self.languages)
        sources = [(stream, trained_and_not(run, self.encoder, "audio", _moments))]
        if self.log_mel:
            sources.append((dataclasses.replace(stream, audio="mel"), _mel))
        rows = {}
        for source, function in sources:
            splits = {k: _gather(run, source, k, function, self.limit) for k in SPLITS}
            for name in splits["train"][0]:
                rows[name] = _best_layer({k: v[0][name] | v[1] for k, v in splits.items()})
        return {"rows": rows, "languages": list(self.languages)}


def _mel(nets, batch):
    del nets
    mask = within(batch["mel_lengths"], batch["mel"].shape[1])
    return {"log-mel": _moments(Encoded(tokens=batch["mel"], mask=mask))}


def _moments(encoded: Encoded) -> tuple[jax.Array, ...]:
    """Mean and deviation over the real tokens, [B, 2 D], of every layer."""
    weight = encoded.mask[..., None]
    count = jnp.maximum(weight.sum(1), 1)

    def moments(x):
        x = jnp.where(weight, x.astype(jnp.float32), 0)
        mean = x.sum(1) / count
        spread = jnp.where(weight, jnp.square(x - mean[:, None]), 0).sum(1) / count
        return jnp.concatenate([mean, jnp.sqrt(spread + 1e-8)], -1)

    return tuple(map(moments, every_layer(encoded)))


def _gather(run, stream, split: str, function, limit: int) -> tuple[dict, dict]:
    """({encoder: {"layers": features}}, words and languages) of a split."""
    stream = dataclasses.replace(stream, split=split)
    if split == "train":
        stream = thinned(stream, limit)
    fields, found = collect(run, stream, function, ("example", "lang"))
    originals = Originals(run, stream)
    words = [originals.text(i) for i in fields["example"]]
    keep = np.array([bool(text) for text in words])
    encoders = {
        name: {"layers": [np.asarray(x, np.float64)[keep] for x in layers]}
        for name, layers in found.items()
    }
    return encoders, {"words": [text for text in words if text], "lang": fields["lang"][keep]}


def _best_layer(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The test split's ranking with the layer and strength that are best on validation."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import StandardScaler, normalize
    from threadpoolctl import threadpool_limits

    counter = CountVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=3, dtype=np.float64)
    counter.fit(found["train"]["words"])
    targets = {k: normalize(counter.transform(v["words"])).toarray() for k, v in found.items()}
    mean = targets["train"].mean(0)
    best: tuple[float, dict[str, Any]] = (-1.0, {})
    for layer in range(len(found["train"]["layers"])):
        scaler = StandardScaler().fit(found["train"]["layers"][layer])
        inputs = {k: scaler.transform(v["layers"][layer]) for k, v in found.items()}
        with threadpool_limits(1):  # threads of small products wait for each other
            values, vectors = np.linalg.eigh(inputs["train"].T @ inputs["train"])
            seen = vectors.T @ (inputs["train"].T @ (targets["train"] - mean))
        for strength in STRENGTHS:
            shrink = 1.0 / (np.maximum(values, 0) + strength * len(inputs["train"]) / 100)
            weights = vectors @ (shrink[:, None] * seen)

            def rank(split, weights=weights, inputs=inputs):
                guess = inputs[split] @ weights
                return _rank(
                    guess, targets[split] - mean, found[split]["words"], found[split]["lang"]
                )

            score = rank("validation")["R@10"]
            if score > best[0]:
                best = (score, rank("test") | {"layer": layer, "validation R@10": score})
    return best[1]


def _rank(guess: np.ndarray, true: np.ndarray, words: list[str], langs: np.ndarray) -> dict:
    """Recalls and chance, averaged over the languages."""
    tables, chances = {}, {}
    for lang in np.unique(langs):
        rows = np.flatnonzero(langs == lang)
        unit = guess[rows] / np.maximum(np.linalg.norm(guess[rows], axis=1, keepdims=True), 1e-12)
        said = np.array([words[i].casefold() for i in rows])
        right = said[:, None] == said[None]
        tables[str(lang)] = ranking.ranking(unit @ true[rows].T, right)
        chances[str(lang)] = ranking.chance(right)
    return ranking.average(tables) | {"chance R@10": ranking.average(chances)["R@10"]}
