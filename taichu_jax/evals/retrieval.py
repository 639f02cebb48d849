"""Retrieval between pictures, words and voices, within each language.

For every query the candidates are all items of the same split and language, ranked by the cosine of
their embeddings; a pair of modalities is the normalised sum of its two embeddings. An answer is right
when it is of the same concept or has the same words: nobody could tell those apart. Beside it stands
the stricter count in which only the item itself is right (`own`). The numbers are those of
`ranking.py`; chance is beside each, computed exactly.

Two questions, kept apart: `test` holds pictures, words and voices of things never seen in training,
`test_recordings` new voices that name pictures which were seen. On the second, directions without the
voice would compare training data with training data and are left out.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from taichu_jax.data.languages import INDEX, known
from taichu_jax.evals import ranking
from taichu_jax.evals.features import collect
from taichu_jax.evals.media import Gallery
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.multimodal.encoders import Encoders

DIRECTIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("audio",), "text"),
    (("text",), "audio"),
    (("image",), "text"),
    (("text",), "image"),
    (("audio",), "image"),
    (("image",), "audio"),
    (("text", "audio"), "image"),
    (("text", "image"), "audio"),
    (("image", "audio"), "text"),
)
FIELDS = ("concept", "lang", "example", "text", *(f"has_{m}" for m in MODALITIES))
FLAT = 1e-6  # cosines closer than this tie: what is left of float32 after a product


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """See the module's docstring.

    Attributes:
      stream: a `Triplets` stream; its split is replaced by each of `splits`.
      languages: measured one by one, then averaged.
      splits: what to measure on.
      encoders: names of the networks.
      examples: queries shown in the report, for each direction and split.
      answers: best candidates shown for each of them.
    """

    stream: Any
    languages: tuple[str, ...] = ("fr", "ro", "ru", "bg", "ca", "es")
    splits: tuple[str, ...] = ("test", "test_recordings")
    encoders: Encoders = Encoders()
    examples: int = 4
    answers: int = 5

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """The results of every split; example media go to `out_dir`."""
        for name in self.languages:
            known(name, "Retrieval.languages")

        def embed(nets, batch):
            encoded = self.encoders.encode(nets, batch)
            return {name: self.encoders.embed(nets, name, x) for name, x in encoded.items()}

        results, shown = {}, []
        for split in self.splits:
            stream = dataclasses.replace(self.stream, split=split, languages=self.languages)
            fields, embeddings = collect(run, stream, embed, fields=FIELDS)
            if not fields:
                continue
            table = self._measure(split, fields, embeddings)
            if not table:
                continue
            results[split] = table
            gallery = Gallery(run, stream, out_dir)
            shown += self._show(split, fields, embeddings, gallery)
        return {"splits": results, "examples": shown}

    def _measure(self, split, fields, embeddings) -> dict[str, Any]:
        by_direction = {}
        for queries, target in directions(split):
            tables, chances, sizes = {}, {}, {}
            own, own_chances = {}, {}
            for language in self.languages:
                rows = complete(fields, language, (*queries, target))
                if rows.size < 2:
                    continue
                scores, right = compare(fields, embeddings, rows, queries, target)
                tables[language] = ranking.ranking(scores, right)
                chances[language] = ranking.chance(right)
                itself = np.eye(rows.size, dtype=bool)
                own[language] = ranking.ranking(scores, itself)
                own_chances[language] = ranking.chance(itself)
                sizes[language] = int(rows.size)
            if tables:
                by_direction[label(queries, target)] = {
                    "mean": ranking.average(tables),
                    "chance": ranking.average(chances),
                    "languages": tables,
                    "own": {
                        "mean": ranking.average(own),
                        "chance": ranking.average(own_chances),
                        "languages": own,
                    },
                    "candidates": sizes,
                }
        return by_direction

    def _show(self, split, fields, embeddings, gallery) -> list[dict[str, Any]]:
        """A few queries of every direction, spread over languages and over the items."""
        shown = []
        for number, (queries, target) in enumerate(directions(split)):
            for i in range(self.examples):
                language = self.languages[(number + i) % len(self.languages)]
                rows = complete(fields, language, (*queries, target))
                if rows.size < 2:
                    continue
                scores, right = compare(fields, embeddings, rows, queries, target)
                # A fixed stride through the items: neither the best nor the worst are picked.
                query = (7 + 13 * number + 29 * i) % rows.size
                order = np.argsort(-scores[query], kind="stable")
                rank = ranking.ranking(scores[query : query + 1], right[query : query + 1])["mean"]
                best = list(order[: self.answers])
                answer = next(j for j in order if right[query, j])
                shown.append(
                    {
                        "split": split,
                        "direction": label(queries, target),
                        "language": language,
                        "candidates": int(rows.size),
                        "rank": rank,
                        "query": gallery.card(fields["example"][rows[query]], queries),
                        "answer": gallery.card(fields["example"][rows[answer]], (target,)),
                        "found": [
                            gallery.card(fields["example"][rows[j]], (target,))
                            | {"score": float(scores[query, j]), "right": bool(right[query, j])}
                            for j in best
                        ],
                    }
                )
        return shown


def directions(split: str):
    """The directions that ask something on a split."""
    return [d for d in DIRECTIONS if split != "test_recordings" or "audio" in (*d[0], d[1])]


def label(queries: tuple[str, ...], target: str) -> str:
    """'text+audio->image'."""
    return f"{'+'.join(queries)}->{target}"


def complete(fields, language: str, modalities: tuple[str, ...]) -> np.ndarray:
    """Indices of the examples in a language that have all the modalities."""
    rows = fields["lang"] == INDEX[language]
    for modality in modalities:
        rows = rows & fields[f"has_{modality}"]
    return np.flatnonzero(rows)


def compare(fields, embeddings, rows, queries, target) -> tuple[np.ndarray, np.ndarray]:
    """(similarity float [n, n], right bool [n, n]) of the examples `rows`, queries by candidates."""
    query = sum(embeddings[name][rows].astype(np.float64) for name in queries)
    query /= np.maximum(np.linalg.norm(query, axis=1, keepdims=True), 1e-12)
    scores = query @ embeddings[target][rows].astype(np.float64).T
    return np.round(scores / FLAT) * FLAT, alike(fields, rows, rows)


def alike(fields, rows, others) -> np.ndarray:
    """bool [n, m]: which examples `others` are of the same concept as `rows`, or have the same words."""
    concept, words, has = fields["concept"], fields["text"], fields["has_text"]
    same_words = (words[rows][:, None] == words[others][None]).all(-1)
    both = has[rows][:, None] & has[others][None]
    return (concept[rows][:, None] == concept[others][None]) | (same_words & both)
