"""Two of this project's objectives, changed to do what the compared models do."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.masking import choose_exactly, corrupt_tokens, share_of
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import FIRST_TOKEN, MASK


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPositionsOnly(MaskedLanguageModel):
    """The same loss and draws; the head, and so the vocabulary, sees the chosen positions alone."""

    def loss(self, nets, batch, memory, rng):
        tokens, mask = batch["text"], batch["text_mask"]
        allowed = mask & (tokens >= FIRST_TOKEN)
        chosen = choose_exactly(fold_name(rng, "positions"), allowed, share_of(allowed, self.rate))
        corrupted = corrupt_tokens(
            fold_name(rng, "corruption"),
            tokens,
            chosen,
            mask_token=MASK,
            first_token=FIRST_TOKEN,
            vocab_size=self.vocab_size,
        )
        states = nets(self.encoder, corrupted, mask).tokens
        most = max(1, round(self.rate * tokens.shape[1]))  # of a row without padding
        where = jnp.argsort(~chosen, axis=-1, stable=True)[:, :most]
        picked = jnp.take_along_axis(states, where[..., None], axis=1)
        labels, counts = (jnp.take_along_axis(x, where, axis=1) for x in (tokens, chosen))
        logits = nets(self.encoder, picked, method="logits")
        total, right, count = cross_entropy(logits, labels, counts)
        return Loss(mean_of(total, count), {"accuracy": (right, count)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndTokens(Encoders):
    """CLIP's pooling (arXiv 2103.00020): the class token, and the text's state at its last token."""

    def embed(self, nets, name, encoded) -> jax.Array:
        """The projected state, L2 norm 1, float32 [B, E]."""
        if name == "image":
            pooled = encoded.tokens[:, 0]
        else:
            last = encoded.mask.sum(-1) - 1
            pooled = jnp.take_along_axis(encoded.tokens, last[:, None, None], axis=1)[:, 0]
        projected = nets(self.projection.format(modality=name), pooled).astype(jnp.float32)
        square = jnp.square(projected).sum(-1, keepdims=True)
        return projected * jax.lax.rsqrt(jnp.maximum(square, 1e-12))
