"""Causal language model: GPT (Radford et al. 2018), GPT-2 (2019).

    L = - 1/N sum_i log P(w_{i+1} | w_1 .. w_i)

Batch: `text` int32 [B, L], `text_mask` bool [B, L]; with packed rows also `text_segments` and
`text_positions`. Every position predicts the next one of its own text; the first token is given.
Networks: `decoder`, a text encoder with `causal=True` and the method `logits`.
Checked against: the formula in NumPy, and that no position sees what follows.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.classification import cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalLanguageModel(Objective):
    """See the module's docstring.

    Attributes:
      decoder: the causal text encoder's name.
      packed: rows hold several texts, told apart by `text_segments`.
    """

    decoder: str = "text"
    packed: bool = False

    def loss(self, nets, batch, memory, rng):
        tokens, mask = batch["text"], batch["text_mask"]
        counts = mask[:, 1:] & mask[:, :-1]
        packing = {}
        if self.packed:
            segments = batch["text_segments"]
            packing = {"positions": batch["text_positions"], "segments": segments}
            counts &= segments[:, 1:] == segments[:, :-1]
        states = nets(self.decoder, tokens, mask, **packing).tokens
        logits = nets(self.decoder, states[:, :-1], method="logits")
        total, right, count = cross_entropy(logits, tokens[:, 1:], counts)
        loss = mean_of(total, count)
        return Loss(
            loss, {"accuracy": (right, count), "log2_perplexity": (total / jnp.log(2.0), count)}
        )
