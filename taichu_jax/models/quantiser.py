"""Product quantisation with the Gumbel softmax (wav2vec 2.0, arXiv 2006.11477, section 2)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense


class Quantised(NamedTuple):
    """What a quantiser returns.

    Attributes:
      vectors: [..., dim], the chosen entries of all groups, one after the other.
      probabilities: float32 [..., groups, codes], softmax of the scores without noise or temperature.
      indices: int32 [..., groups], the chosen entries.
    """

    vectors: jax.Array
    probabilities: jax.Array
    indices: jax.Array


class ProductQuantiser(nn.Module):
    """Chooses one of `codes` entries in each of `groups` codebooks.

    Attributes:
      dim: width of the result, `dim / groups` for an entry.
    """

    groups: int = 2
    codes: int = 320
    dim: int = 256

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rng: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
    ) -> Quantised:
        """Quantises x [..., D].

        Args:
          rng: key of the Gumbel noise g. The choice is then argmax(scores + g), a draw from the
            softmax of the scores, and its gradient that of softmax((scores + g) / temperature)
            (straight-through). Without a key the choice is argmax(scores), and no noise enters the
            gradient.
          temperature: of the softmax that gives the gradient; may be traced.
        """
        if self.dim % self.groups:
            raise ValueError(f"dim {self.dim} is not a multiple of groups {self.groups}")
        entries = self.param(
            "code_embedding",
            nn.initializers.uniform(1.0),
            (self.groups, self.codes, self.dim // self.groups),
        )
        scores = Dense(
            self.groups * self.codes, kernel_init=nn.initializers.normal(1.0), name="scores"
        )(x)
        scores = scores.reshape(*x.shape[:-1], self.groups, self.codes).astype(jnp.float32)
        noisy = scores if rng is None else scores + jax.random.gumbel(rng, scores.shape)
        indices = noisy.argmax(-1)
        hard = jax.nn.one_hot(indices, self.codes)
        soft = jax.nn.softmax(noisy / jnp.asarray(temperature, jnp.float32))
        chosen = hard + (soft - jax.lax.stop_gradient(soft))  # exactly `hard`, with soft's gradient
        vectors = jnp.einsum("...gv,gvd->...gd", chosen.astype(x.dtype), entries.astype(x.dtype))
        return Quantised(
            vectors=vectors.reshape(*x.shape[:-1], self.dim),
            probabilities=jax.nn.softmax(scores),
            indices=indices,
        )
