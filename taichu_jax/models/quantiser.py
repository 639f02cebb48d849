"""Product quantisation, by the Gumbel softmax or by the nearest entry.

Gumbel softmax: wav2vec 2.0 (arXiv 2006.11477, section 2) and vq-wav2vec (arXiv 1910.05453, section
3.1). Nearest entry, also called k-means: vq-wav2vec, section 3.2, after VQ-VAE (arXiv 1711.00937).
Both take the same arguments, so an objective works with either.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dense
from taichu_jax.ops.gumbel import choose_code
from taichu_jax.ops.normalise import over_features


class Quantised(NamedTuple):
    """What a quantiser returns.

    Attributes:
      vectors: [..., dim], the chosen entries of all groups, one after the other.
      probabilities: float32 [..., groups, codes], softmax of the scores without noise or temperature.
      indices: int32 [..., groups], the chosen entries.
      penalty: float32 [...], the loss by which a quantiser learns that no other gradient reaches, for
        the objective to add where a vector is real; None if there is no need for one.
    """

    vectors: jax.Array
    probabilities: jax.Array
    indices: jax.Array
    penalty: jax.Array | None = None


class ProductQuantiser(nn.Module):
    """Chooses one of `codes` entries in each of `groups` codebooks, by scores.

    Attributes:
      dim: width of the result, `dim / groups` for an entry.
      hidden: 0 for linear scores (wav2vec 2.0); else units of a ReLU layer before them (vq-wav2vec).
      shared: all groups choose from one codebook (vq-wav2vec's option).
    """

    groups: int = 2
    codes: int = 320
    dim: int = 256
    hidden: int = 0
    shared: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rng: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
    ) -> Quantised:
        """Quantises x [..., D].

        Args:
          rng: key of the Gumbel noise (ops/gumbel.py); without one the largest score is chosen.
          temperature: of the softmax that gives the gradient; may be traced.
        """
        entries = _entries(self, nn.initializers.uniform(1.0))
        if self.hidden:
            x = jax.nn.relu(Dense(self.hidden, name="up")(x))
        # Only linear scores start with unit weights (fairseq); through a hidden layer they would
        # choose as good as without noise from the first step on.
        start = nn.initializers.lecun_normal() if self.hidden else nn.initializers.normal(1.0)
        scores = Dense(self.groups * self.codes, kernel_init=start, name="scores")(x)
        scores = scores.reshape(*x.shape[:-1], self.groups, self.codes).astype(jnp.float32)
        chosen, indices = choose_code(scores, rng, temperature)
        vectors = jnp.einsum("...gv,gvd->...gd", chosen.astype(x.dtype), entries.astype(x.dtype))
        return Quantised(
            vectors=vectors.reshape(*x.shape[:-1], self.dim),
            probabilities=jax.nn.softmax(scores),
            indices=indices,
        )


class KmeansQuantiser(nn.Module):
    """Takes the nearest of `codes` entries in each of `groups` codebooks.

    z = norm(x P), each group of channels with its own P and norm; the result is the nearest entry e,
    its gradient that of z (straight-through). `Quantised.penalty` is the mean over the `dim` channels of

        (sg(z) - e)^2 + gamma (z - sg(e))^2

    The paper writes the sum over channels, the authors' code (fairseq) takes the mean. Their norm is one
    over a group's channels and all steps of an utterance; here it is over the channels of one step, so
    that a code knows nothing of what comes later, nor of padding. `probabilities` are the softmax of the
    negative squared distances.

    Attributes:
      dim: width of z and of the result, `dim / groups` for an entry.
      gamma: weight of the commitment term.
      shared: all groups choose from one codebook.
    """

    groups: int = 2
    codes: int = 320
    dim: int = 256
    gamma: float = 0.25
    shared: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        rng: jax.Array | None = None,
        temperature: jax.Array | float = 1.0,
    ) -> Quantised:
        """Quantises x [..., D]. The choice draws nothing: `rng` and `temperature` are not used."""
        del rng, temperature
        entries = _entries(self, nn.initializers.normal(0.01)).astype(jnp.float32)
        if x.shape[-1] % self.groups:
            raise ValueError(f"{x.shape[-1]} channels are not a multiple of groups {self.groups}")
        inside, outside = x.shape[-1] // self.groups, self.dim // self.groups
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(batch_axis=0),
            (self.groups, inside, outside),
        )
        scale = self.param("scale", nn.initializers.ones, (self.groups, outside))
        bias = self.param("bias", nn.initializers.zeros, (self.groups, outside))
        grouped = x.reshape(*x.shape[:-1], self.groups, inside)
        z = jnp.einsum("...gi,gio->...go", grouped, kernel.astype(x.dtype))
        z = over_features(z) * scale.astype(jnp.float32) + bias.astype(jnp.float32)

        # -|z - e|^2 but for |z|^2, which is the same for all entries
        scores = 2 * jnp.einsum("...gd,gvd->...gv", z, entries) - jnp.square(entries).sum(-1)
        indices = scores.argmax(-1)
        nearest = jnp.einsum("...gv,gvd->...gd", jax.nn.one_hot(indices, self.codes), entries)
        still = jax.lax.stop_gradient
        learn, commit = jnp.square(still(z) - nearest), jnp.square(z - still(nearest))
        vectors = still(nearest) + (z - still(z))  # exactly the entry, with z's gradient
        return Quantised(
            vectors=vectors.reshape(*x.shape[:-1], self.dim).astype(x.dtype),
            probabilities=jax.nn.softmax(scores),
            indices=indices,
            penalty=(learn + self.gamma * commit).mean((-2, -1)),
        )


def _entries(module: nn.Module, start: nn.initializers.Initializer) -> jax.Array:
    """The codebooks [groups, codes, dim / groups]; with `shared`, the same for all groups."""
    if module.dim % module.groups:
        raise ValueError(f"dim {module.dim} is not a multiple of groups {module.groups}")
    width = module.dim // module.groups
    books = 1 if module.shared else module.groups
    entries = module.param("code_embedding", start, (books, module.codes, width))
    return jnp.broadcast_to(entries, (module.groups, module.codes, width))
