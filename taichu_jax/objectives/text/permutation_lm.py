"""Permutation language model: XLNet (arXiv 1906.08237, eq. 5).

    L = - 1/|P| sum_{t in P} log P(x_{z_t} | x_{z_1} .. x_{z_{t-1}})

z is a random order of a text's tokens in which those of P come last: spans of 1 to 5 tokens, one in K
of all. Special tokens are never in P. Which token stands where is seen by the stream of contents; the
query stream, which predicts, knows its own place alone.

Batch: `text` int32 [B, L], `text_mask` bool [B, L]; with packed rows also `text_segments` int32 [B, L].
Networks: `encoder`, an `XLNet`.
Defaults: K = 6 and the spans from the paper, section 3.1; lengths uniform. The authors' code draws a
length n with a weight of 1/n, puts 6 n other tokens around the span (one in 7), fills up to a fixed
number with single tokens, and begins spans where words begin. `context` is 'open' there: tokens outside P
see each other ([SEP] and [CLS] excepted); 'ordered' is eq. 3.
Checked against: XLNetLMHeadModel of transformers 5.23 with the same weights, perm_mask and
target_mapping: every state of both streams, logits, loss, all gradients within 1e-4; exact statistics of
spans and orders.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.factorisation import (
    first_true,
    most_predicted,
    predicted_spans,
    random_order,
    seen_from,
)
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import FIRST_TOKEN

CONTEXTS = ("open", "ordered")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutationLanguageModel(Objective):
    """See the module's docstring.

    Attributes:
      encoder: the name of the XLNet.
      one_in: K.
      longest: the longest span, in tokens.
      context: what tokens outside P see, see `ops.factorisation.seen_from`.
      packed: rows hold several texts, told apart by `text_segments`.
    """

    encoder: str = "text"
    one_in: int = 6
    longest: int = 5
    context: str = "ordered"
    packed: bool = False

    def __post_init__(self):
        if self.context not in CONTEXTS:
            raise UserError(f"context={self.context!r}; {choices(self.context, CONTEXTS)}")
        for name, least in (("one_in", 2), ("longest", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be {least} or more")

    def loss(self, nets, batch, memory, rng):
        tokens, mask = batch["text"], batch["text_mask"]
        sizes = {"one_in": self.one_in, "longest": self.longest}
        allowed = mask & (tokens >= FIRST_TOKEN)
        predicted = predicted_spans(fold_name(rng, "spans"), allowed, **sizes)
        order = random_order(fold_name(rng, "order"), predicted)
        see = seen_from(order, predicted, self.context)
        if self.packed:
            segments = batch["text_segments"]
            see &= segments[:, :, None] == segments[:, None, :]
        targets, there = first_true(predicted, most_predicted(tokens.shape[1], **sizes))
        content, queries = nets(self.encoder, tokens, mask, see, targets, method="two_streams")
        logits = nets(self.encoder, queries.tokens, method="logits")
        labels = jnp.take_along_axis(tokens, targets, axis=1)
        total, right, count = cross_entropy(logits, labels, there)
        metrics = {
            "accuracy": (right, count),
            "log2_perplexity": (total / jnp.log(2.0), count),
            "feature_std": feature_std(content.tokens, mask),
        }
        return Loss(mean_of(total, count), metrics)
