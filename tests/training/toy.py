"""Linear networks and squared errors, for which every update can be written down."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.models.layers import Dropout
from taichu_jax.objectives.base import Loss, Objective, counted

CALLS: list = []


class Linear(nn.Module):
    """x W + b, after dropout. Every call is noted in `CALLS`, under tracing too."""

    features: int = 3
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        CALLS.append(self.name)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.normal(1.0), (self.features,))
        return Dropout(self.dropout)(x) @ kernel + bias


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquaredError(Objective):
    """Mean squared error to `y`, or to what the teacher says; its memory counts the calls."""

    net: str = "net"
    to_teacher: bool = False

    def memory(self, rng):
        return jnp.zeros((), jnp.int32)

    def loss(self, nets, batch, memory, rng):
        target = nets.teacher(self.net, batch["x"] + 1) if self.to_teacher else batch["y"]
        errors = jnp.square(nets(self.net, batch["x"]) - target).mean(-1)
        return Loss(errors.mean(), {"error": counted(errors)}, memory + 1)
