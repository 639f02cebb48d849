"""What the cross-modal encoder knows from any subset of words, picture and voice (OPT, table 2).

For every non-empty subset S: the category of the item from the [CLS] state of fusion(S), by a linear
probe learnt on training pictures and asked about held-out ones (S is the same in both), and the words
that the decoder writes from S. The commonest category stands beside.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.evals import classify
from taichu_jax.evals.captions import Captions
from taichu_jax.evals.features import collect, has_networks, thinned
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.multimodal.encoders import Encoders

SUBSETS = tuple(s for size in (1, 2, 3) for s in itertools.combinations(MODALITIES, size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModalitySubsets:
    """See the module's docstring.

    Attributes:
      stream: a `Triplets` stream; its split is replaced.
      languages: of the words and voices, training and test.
      label: the batch field with the classes.
      encoders, decoder: names of the networks; without the decoder, no words are written.
      limit: training examples for the probe, evenly spread.
      caption_limit: held-out examples per language from which words are written.
    """

    stream: Any
    languages: tuple[str, ...] = ("fr", "ro", "ru", "bg", "ca", "es")
    label: str = "category"
    encoders: Encoders = Encoders()
    decoder: str = "text_decoder"
    train_split: str = "train"
    test_split: str = "test"
    limit: int = 1000
    caption_limit: int = 20

    def run(self, run, out_dir: pathlib.Path) -> dict[str, Any]:
        """Rows {"subset", "accuracy", "chrF", "WER", "exact"}, and the same for chance."""
        fields = (self.label, *(f"has_{m}" for m in MODALITIES))
        stream = dataclasses.replace(self.stream, languages=self.languages)
        train = thinned(dataclasses.replace(stream, split=self.train_split), self.limit)
        test = dataclasses.replace(stream, split=self.test_split)
        (known, states), (asked, test_states) = (
            collect(run, s, self._states, fields, _complete) for s in (train, test)
        )
        if not known or not asked:
            raise UserError("ModalitySubsets: no example of a split has all three modalities")
        rows = [self._row(known, asked, states, test_states, "+".join(s)) for s in SUBSETS]
        chance = {
            "subset": "chance",
            "accuracy": classify.majority(known[self.label], asked[self.label]),
        }
        if has_networks(run, self.decoder):
            words = Captions(
                stream=self.stream,
                subsets=SUBSETS,
                languages=self.languages,
                splits=(self.test_split,),
                encoders=self.encoders,
                decoder=self.decoder,
                limit=self.caption_limit,
                examples=0,
            ).run(run, out_dir)["splits"][self.test_split]
            for row in rows:
                row |= words[row["subset"]]["mean"]
            chance |= words["another item"]["mean"]
        return {
            "rows": rows,
            "chance": chance,
            "train": int(known[self.label].size),
            "test": int(asked[self.label].size),
            "classes": int(np.unique(known[self.label]).size),
            "split": self.test_split,
        }

    def _states(self, nets, batch):
        encoded = self.encoders.encode(nets, batch)
        return {
            "+".join(s): self.encoders.fuse(nets, {m: encoded[m] for m in s}).tokens[:, 0]
            for s in SUBSETS
        }

    def _row(self, known, asked, states, test_states, name) -> dict[str, Any]:
        predicted = classify.linear_probe(
            states[name].astype(np.float64),
            known[self.label],
            test_states[name].astype(np.float64),
        )
        return {"subset": name, "accuracy": classify.accuracy(predicted, asked[self.label])}


def _complete(batch) -> np.ndarray:
    """Examples that have all three modalities, so that every subset is asked the same questions."""
    return np.all([batch[f"has_{m}"] for m in MODALITIES], axis=0)
