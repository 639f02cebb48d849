"""A language model of n-grams with interpolated Kneser-Ney smoothing (Chen and Goodman 1998).

    P(w | h) = max(c(h w) - D, 0) / c(h) + D N(h) / c(h) * P(w | h'),    h' = h without its first id

c counts in the texts at the highest order, and below it in how many contexts an n-gram occurs; N(h) is
the number of ids seen after h; D = n1 / (n1 + 2 n2) for every order, from the n-grams counted once and
twice.
Below the unigrams all ids are equally likely.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.ops.vocabulary import CLS, SEP, UNK


class NGram:
    """log P of the next id, given a prefix; a `decoding.ctc.Scorer`.

    Args:
      texts: sequences of ids without specials; each counts with its end, [SEP].
      vocab_size: number of ids. Of the special ones only [SEP] and [UNK] have a probability.
      order: ids of an n-gram.
    """

    def __init__(self, texts: Iterable[Sequence[int]], vocab_size: int, order: int = 5):
        if order < 1:
            raise UserError(f"order={order}: must be 1 or more")
        self.order = order
        self._allowed = np.arange(vocab_size) >= UNK
        self._allowed[SEP] = True
        grams: collections.Counter[tuple[int, ...]] = collections.Counter()
        for text in texts:
            ids = (CLS,) * (order - 1) + tuple(map(int, text)) + (SEP,)
            grams.update(ids[i : i + order] for i in range(len(ids) - order + 1))
        if not grams:
            raise UserError("an n-gram model needs at least one text")
        self._after: list[dict[tuple[int, ...], dict[int, int]]] = [{} for _ in range(order)]
        self._discounts = [0.0] * order
        for size in range(order, 0, -1):
            after: dict[tuple[int, ...], dict[int, int]] = collections.defaultdict(dict)
            for gram, count in grams.items():
                after[gram[:-1]][gram[-1]] = count
            once, twice = (sum(c == k for c in grams.values()) for k in (1, 2))
            self._after[size - 1] = dict(after)
            self._discounts[size - 1] = once / (once + 2 * twice) if once else 0.0
            grams = collections.Counter(gram[1:] for gram in grams)  # contexts, not occurrences
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, prefix: tuple[int, ...]) -> np.ndarray:
        """float64 [V]; minus infinity for the specials that no text has."""
        context = ((CLS,) * (self.order - 1) + tuple(prefix))[len(prefix) :]
        if context not in self._known:
            with np.errstate(divide="ignore"):
                self._known[context] = np.log(self._probabilities(context))
        return self._known[context]

    def _probabilities(self, context: tuple[int, ...]) -> np.ndarray:
        equal = self._allowed / self._allowed.sum()
        lower = self._probabilities(context[1:]) if context else equal
        after = self._after[len(context)].get(context)
        if after is None:
            return lower
        total, discount = sum(after.values()), self._discounts[len(context)]
        result = discount * len(after) / total * lower
        for i, count in after.items():
            result[i] += (count - discount) / total
        return result
