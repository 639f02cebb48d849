"""The labels of one recording from CTC's log-probabilities: greedy, or a beam with a language model.

    greedy:  B(argmax path);  the likeliest path, not the likeliest text
    beam:    argmax_y  log p(y | x) + a log P(y) + b |y|

The beam is over texts, not over paths (arXiv 1408.2873): every prefix carries the probability of all of
its paths that end in a blank, and of all others. Without pruning it is exact.
"""

from __future__ import annotations

import collections
from collections.abc import Callable

import numpy as np

from taichu_jax.ops.vocabulary import PAD, SEP

BLANK = PAD
Scorer = Callable[[tuple[int, ...]], np.ndarray]
"""From a prefix of ids to log P of every next id, float [V]; [SEP] is the end of the text."""


def greedy(log_probs: np.ndarray) -> list[int]:
    """The likeliest path [T, V], its repeats merged and blanks dropped."""
    best = np.asarray(log_probs).argmax(-1)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    return [int(i) for i in best[starts] if i != BLANK]


def beam_search(
    log_probs: np.ndarray,
    *,
    beam: int = 16,
    scorer: Scorer | None = None,
    weight: float = 0.0,
    bonus: float = 0.0,
    least: float = -12.0,
) -> list[tuple[tuple[int, ...], float]]:
    """(labels, score), best first: the texts in the beam at the end.

    Args:
      log_probs: float [T, V] of the real states.
      beam: prefixes that are kept after every state.
      scorer, weight: the language model and a; None for none.
      bonus: b, for every label, against the language model's liking for short texts.
      least: labels whose log p is below it at a state are not tried there.
    """

    def prior(prefix: tuple[int, ...], score: float, label: int) -> float:
        return score + bonus + (weight * float(scorer(prefix)[label]) if scorer else 0.0)

    # prefix -> log p of its paths that end in a blank and in its last label; and a log P + b |y|
    ends: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -np.inf)}
    priors: dict[tuple[int, ...], float] = {(): 0.0}
    for frame in np.asarray(log_probs, np.float64):
        tried = [int(i) for i in np.flatnonzero(frame >= least) if i != BLANK]
        new: dict[tuple[int, ...], list[float]] = collections.defaultdict(_impossible)

        def add(prefix, which, log_p, new=new):
            if log_p > -np.inf:  # what no path can say is no candidate
                new[prefix][which] = np.logaddexp(new[prefix][which], log_p)

        for prefix, (blank, label) in ends.items():
            both = np.logaddexp(blank, label)
            add(prefix, 0, both + frame[BLANK])
            if prefix:
                add(prefix, 1, label + frame[prefix[-1]])
            for i in tried:
                longer = (*prefix, i)
                if longer not in priors:
                    priors[longer] = prior(prefix, priors[prefix], i)
                # The same label again needs a blank between, or it is the same one going on.
                add(longer, 1, (blank if prefix and prefix[-1] == i else both) + frame[i])
        scored = {p: np.logaddexp(blank, label) + priors[p] for p, (blank, label) in new.items()}
        ranked = sorted(scored, key=scored.__getitem__, reverse=True)
        ends = {prefix: (new[prefix][0], new[prefix][1]) for prefix in ranked[:beam]}
    scores = {p: float(np.logaddexp(*pair)) + priors[p] for p, pair in ends.items()}
    if scorer:
        scores = {p: score + weight * float(scorer(p)[SEP]) for p, score in scores.items()}
    return sorted(scores.items(), key=lambda item: item[1], reverse=True)


def _impossible() -> list[float]:
    return [-np.inf, -np.inf]
