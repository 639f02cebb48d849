"""A transformer, perhaps with experts, as a network of a config, and the simplest loss on it."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.objectives.base import Loss, Objective


class Encoder(nn.Module):
    """Four blocks."""

    stack: Stack

    @nn.compact
    def __call__(self, x, mask):
        return Transformer(depth=4, heads=2, expansion=2.0, stack=self.stack, name="t")(x, mask)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Objective):
    """Mean square of the states of one token per row."""

    def loss(self, nets, batch, memory, rng):
        x = batch["x"][:, None]
        return Loss(jnp.square(nets("encoder", x, jnp.ones(x.shape[:2], bool))).mean())
