"""Denoising by a text-to-text network: BART (arXiv 1910.13461).

    L = - 1/N sum_i log P(w_i | w_1 .. w_{i-1}, noise(w))

noise: spans, 30 % of the tokens together, are replaced with one [MASK] each, whatever their length,
which has a Poisson distribution with a mean of 3; and the sentences of a row change places. The decoder
writes the whole text. Noise is made on the device, as all masks are here: what is read may be longer or
shorter than what is written, but both fit into the row.

Batch: `text` int32 [B, L], `text_mask` bool [B, L], real tokens first; with `permute` also
`text_segments` int32 [B, L]: 1, 2, ... by sentence, 0 for padding. A row is one text, packed or not. Its
first and last token are not replaced, the first one is given.
Networks: `model`, an `EncoderDecoder`.
Defaults: rate and lengths from the paper, sections 2.2 and 5.1. The authors' command (fairseq issue 1899)
has a mean of 3.5, a tenth of its masks are random tokens, and its spans may overlap.
Checked against: BartForConditionalGeneration of transformers 5.23 with the same weights and noise: every
state of both sides, logits, loss, all gradients within 1e-4; exact statistics of spans and orders.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.text_infilling import infill, permute_sentences
from taichu_jax.ops.vocabulary import MASK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denoising(Objective):
    """See the module's docstring.

    Attributes:
      model: the name of the text-to-text network.
      rate: share of the tokens that are replaced.
      mean_span: the mean length of what one [MASK] stands for, in tokens.
      permute: rows hold several sentences, told apart by `text_segments`, that change places.
    """

    model: str = "text"
    rate: float = 0.3
    mean_span: float = 3.0
    permute: bool = False

    def __post_init__(self):
        if not 0 <= self.rate <= 1:
            raise UserError(f"rate={self.rate}: must be from 0 to 1")
        if not 0 < self.mean_span <= 50:
            raise UserError(f"mean_span={self.mean_span}: must be above 0, and 50 at most")

    def loss(self, nets, batch, memory, rng):
        tokens, mask = batch["text"], batch["text_mask"]
        noisy = tokens
        if self.permute:
            noisy = permute_sentences(fold_name(rng, "order"), noisy, batch["text_segments"])
        noisy, real = infill(
            fold_name(rng, "spans"),
            noisy,
            mask,
            mask_token=MASK,
            rate=self.rate,
            mean=self.mean_span,
        )
        read = nets(self.model, noisy, real)
        logits = nets(
            self.model, tokens[:, :-1], mask[:, :-1], read.tokens, read.mask, method="decode"
        )
        total, right, count = cross_entropy(logits, tokens[:, 1:], mask[:, 1:])
        metrics = {
            "accuracy": (right, count),
            "log2_perplexity": (total / jnp.log(2.0), count),
            "feature_std": feature_std(read.tokens, read.mask),
        }
        return Loss(mean_of(total, count), metrics)
