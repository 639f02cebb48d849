"""Small networks on top of encoders."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models import layers
from taichu_jax.models.layers import Dense, LayerNorm

ACTIVATIONS = {**layers.ACTIVATIONS, "tanh": jnp.tanh}


def activation_named(name: str) -> Callable[[jax.Array], jax.Array]:
    """Raises ValueError for a name that is not in `ACTIVATIONS`."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}; valid: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]


class Projection(nn.Module):
    """Into another space: linear if `hidden` is 0, else Dense, norm and activation, Dense.

    Attributes:
      features: output width.
      hidden: units between; 0 for a linear map without bias (CLIP).
      activation: one of `Style.activation`, or 'tanh' (BERT's pooler).
      norm: 'before' the activation, 'after' it (BERT, Mockingjay, TERA), or 'none'.
      epsilon: of the norm.
    """

    features: int
    hidden: int = 0
    activation: str = "gelu"
    norm: str = "before"
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.hidden:
            # Not called `out`: the sharding rule for that name expects a layer split by units before it.
            return Dense(self.features, use_bias=False, name="linear")(x)
        if self.norm not in ("before", "after", "none"):
            raise ValueError(f"norm={self.norm!r}; valid: after, before, none")
        activation, norm = activation_named(self.activation), LayerNorm(self.epsilon, name="norm")
        x = Dense(self.hidden, name="up")(x)
        if self.norm == "none":
            x = activation(x)
        else:
            x = activation(norm(x)) if self.norm == "before" else norm(activation(x))
        return Dense(self.features, name="out")(x)


class LogitScale(nn.Module):
    """The learned inverse temperature of CLIP (arXiv 2103.00020), clamped to `largest`.

    Attributes:
      initial: 1 / 0.07, as in CLIP.
    """

    initial: float = 1 / 0.07
    largest: float = 100.0

    @nn.compact
    def __call__(self) -> jax.Array:
        start = nn.initializers.constant(math.log(self.initial))
        scale = self.param("logit_scale", start, ()).astype(jnp.float32)
        return jnp.exp(jnp.minimum(scale, math.log(self.largest)))


class ClampedLogitScale(nn.Module):
    """FLAVA's inverse temperature (arXiv 2112.04482): its logarithm counts as from 0 to 4.6052.

    Beyond a bound it has the gradient that it has there, and so can come back. The authors' code moves
    the parameter itself to the bound, before every step.

    Attributes:
      initial: 1 / 0.07, as in CLIP.
      lowest, highest: of the logarithm.
    """

    initial: float = 1 / 0.07
    lowest: float = 0.0
    highest: float = 4.6052

    @nn.compact
    def __call__(self) -> jax.Array:
        start = nn.initializers.constant(math.log(self.initial))
        scale = self.param("logit_scale", start, ()).astype(jnp.float32)
        beyond = jnp.clip(scale, self.lowest, self.highest) - scale
        return jnp.exp(scale + jax.lax.stop_gradient(beyond))
