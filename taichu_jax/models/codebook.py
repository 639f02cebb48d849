"""Vectors that stand for discrete units."""

from __future__ import annotations

import jax
from flax import linen as nn


class Codebook(nn.Module):
    """One learned vector for every unit (HuBERT's code embeddings): a call gives [codes, dim].

    Drawn uniformly from [0, 1), as in the authors' code.
    """

    codes: int
    dim: int = 256

    @nn.compact
    def __call__(self) -> jax.Array:
        shape = (self.codes, self.dim)
        return self.param("code_embedding", nn.initializers.uniform(1.0), shape)
