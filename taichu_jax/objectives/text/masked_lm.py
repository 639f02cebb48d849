"""Masked language model: BERT (arXiv 1810.04805) with RoBERTa's dynamic masks (arXiv 1907.11692).

    L = - 1/|M| sum_{i in M} log P(w_i | w with the positions M corrupted)

M is 15 % of the tokens of every text, redrawn at every step; of these 80 % become [MASK], 10 % a
random token and 10 % stay. No next-sentence term (RoBERTa).

Batch: `text` int32 [B, L], `text_mask` bool [B, L]; with packed rows also `text_segments` and
`text_positions` int32 [B, L]. Special tokens are never chosen.
Networks: `encoder`, a text encoder with the method `logits`.
Defaults: rate and 80/10/10 from the paper, section 3.1.
Checked against: the formula in NumPy, exact mask statistics; with the head at the chosen tokens alone,
loss and gradient of the whole.
"""

from __future__ import annotations

import dataclasses
import math

from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.chosen import gather_chosen
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.masking import hide_words
from taichu_jax.ops.monitors import feature_std


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(Objective):
    """See the module's docstring.

    Attributes:
      encoder: the text encoder's name.
      vocab_size: random replacements are drawn below it.
      rate: share of the tokens that are predicted.
      chosen_only: the head sees the predicted tokens alone, which gives the same loss and gradients for
        less work where the vocabulary is large.
      packed: rows hold several texts, told apart by `text_segments`.
    """

    vocab_size: int
    encoder: str = "text"
    rate: float = 0.15
    chosen_only: bool = False
    packed: bool = False

    def loss(self, nets, batch, memory, rng):
        tokens, mask = batch["text"], batch["text_mask"]
        corrupted, chosen = hide_words(
            rng, tokens, mask, rate=self.rate, vocab_size=self.vocab_size
        )
        packing = {}
        if self.packed:
            packing = {"positions": batch["text_positions"], "segments": batch["text_segments"]}
        states = nets(self.encoder, corrupted, mask, **packing).tokens
        read, labels, counts = states, tokens, chosen
        if self.chosen_only:
            most = max(1, math.ceil(self.rate * tokens.shape[1]))  # of a row without padding
            counts, (read, labels) = gather_chosen(chosen, most, states, tokens)
        logits = nets(self.encoder, read, method="logits")
        total, right, count = cross_entropy(logits, labels, counts)
        metrics = {"accuracy": (right, count), "feature_std": feature_std(states, mask)}
        return Loss(mean_of(total, count), metrics)
