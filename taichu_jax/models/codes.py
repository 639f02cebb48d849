"""The quantiser of VQ-APC (arXiv 2005.08392) and NPC (arXiv 2011.00406)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.quantiser import Quantised
from taichu_jax.ops.gumbel import choose_code


class GroupQuantiser(nn.Module):
    """Replaces every group of channels by an entry of the group's own codebook.

    The channels are cut into `groups` equal parts. Each part gets scores from a linear map of itself
    alone, chooses one of `codes` entries by the Gumbel softmax, and becomes that entry: a codebook is a
    linear map without bias of the one-hot choice. `ProductQuantiser` (wav2vec 2.0) differs in that
    every group sees all channels, in the width of its result and in its initial values; these are the
    ones of linear layers in the authors' code (uniform, 1 / sqrt(inputs)).
    """

    groups: int = 1
    codes: int = 128

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rng: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
    ) -> Quantised:
        """Quantises x [..., D]; `rng` and `temperature` as in `ops.gumbel.choose_code`."""
        if x.shape[-1] % self.groups:
            raise ValueError(f"width {x.shape[-1]} is not a multiple of groups {self.groups}")
        width = x.shape[-1] // self.groups
        kernel = self.param("scores_kernel", _uniform, (self.groups, width, self.codes))
        bias = self.param("scores_bias", nn.initializers.zeros, (self.groups, self.codes))
        entries = self.param("code_embedding", _uniform, (self.groups, self.codes, width))
        parts = x.reshape(*x.shape[:-1], self.groups, width)
        scores = jnp.einsum("...gd,gdv->...gv", parts, kernel.astype(x.dtype)).astype(jnp.float32)
        scores += bias.astype(jnp.float32)
        chosen, indices = choose_code(scores, rng, temperature)
        vectors = jnp.einsum("...gv,gvd->...gd", chosen.astype(x.dtype), entries.astype(x.dtype))
        return Quantised(
            vectors=vectors.reshape(x.shape),
            probabilities=jax.nn.softmax(scores),
            indices=indices,
        )


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    bound = shape[-2] ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)
