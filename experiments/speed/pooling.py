"""CLIP's pooling, which the compared model has."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.ops.normalise import unit


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
        return unit(nets(self.projection.format(modality=name), pooled))
