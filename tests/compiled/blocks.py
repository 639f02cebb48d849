"""The smallest config of which all collectives can be foretold: blocks, and nothing around them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.config import spec
from taichu_jax.models.style import Style
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.objectives.base import Loss, Objective
from taichu_jax.training.experiment import Experiment, defaults
from taichu_jax.training.optim import AdamW
from taichu_jax.training.sharding import MeshShape

BATCH, LENGTH, WIDTH, HEADS, DEPTH = 16, 8, 32, 4, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors:
    """Sequences of vectors; only their shapes are ever asked for."""

    batch_size: int = BATCH
    length: int = LENGTH
    width: int = WIDTH

    def fields(self):
        shape = (self.batch_size, self.length, self.width)
        return {"x": jax.ShapeDtypeStruct(shape, np.float32)}


class Blocks(nn.Module):
    """A transformer on vectors as they come."""

    depth: int = DEPTH
    heads: int = HEADS
    stack: Stack = Stack()
    gated: bool = False

    @nn.compact
    def __call__(self, x):
        real = jnp.ones(x.shape[:2], bool)
        style = Style(gated=self.gated)
        blocks = Transformer(
            self.depth, self.heads, stack=self.stack, style=style, name="transformer"
        )
        return blocks(x, real)[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Energy(Objective):
    """The mean square of what comes out."""

    def loss(self, nets, batch, memory, rng):
        return Loss(jnp.square(nets("blocks", batch["x"])).mean(), {})


def get_config(*, scan=False, remat="none", depth=DEPTH, gated=False, **mesh):
    config = defaults()
    config.name = "blocks"
    config.streams = {"vectors": spec(Vectors)}
    config.networks = {
        "blocks": spec(Blocks, depth=depth, gated=gated, stack=spec(Stack, scan=scan, remat=remat))
    }
    config.objectives = {"energy": spec(Energy, source="vectors")}
    config.optimizer = spec(AdamW, learning_rate=1e-3)
    config.mesh = spec(MeshShape, **mesh)
    return config


def experiment(devices: int, **settings) -> Experiment:
    """On the first `devices` of this machine."""
    return Experiment.from_config(get_config(**settings), devices=jax.devices()[:devices])
