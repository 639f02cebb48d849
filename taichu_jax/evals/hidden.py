"""Hidden states of frozen encoders, trained or as they started, for probes."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from taichu_jax.models.layers import Encoded, masked_mean
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets


def inputs_of(batch: Mapping[str, jax.Array], modality: str) -> tuple[jax.Array, ...]:
    """What an encoder is called with: the picture; or frames or samples and how many are real."""
    if modality == "image":
        return (batch["image"],)
    name = "mel" if "mel" in batch else "audio"
    return batch[name], batch[f"{name}_lengths"]


def every_layer(encoded: Encoded) -> tuple[jax.Array, ...]:
    """States [B, N, D] of the input, of every block, and the last ones normalised."""
    return (*encoded.layers, encoded.tokens)


def pooled(encoded: Encoded) -> tuple[jax.Array, ...]:
    """Means [B, D] over the real tokens of every layer."""
    return tuple(masked_mean(x, encoded.mask) for x in every_layer(encoded))


def untrained(run, name: str, inputs: tuple[jax.Array, ...]) -> BoundNets:
    """The network `name` of a run with the weights that it would have started from."""
    module = run.experiment.networks[name]
    seed = fold_name(jax.random.key(run.config.seed), "params")  # as training/state.py does it
    params = module.init(fold_name(seed, name), *inputs)["params"]
    return BoundNets({name: module}, {name: params})


def trained_and_not(run, name: str, modality: str, read):
    """A function for `features.collect`: {"trained": read(Encoded), "untrained": ...} of a batch.

    Both in one pass, because decoding the examples costs as much as encoding them.
    """

    def states(nets, batch):
        inputs = inputs_of(batch, modality)
        start = untrained(run, name, inputs)
        return {"trained": read(nets(name, *inputs)), "untrained": read(start(name, *inputs))}

    return states


def at_rate(states: jax.Array, mask: jax.Array, every: int) -> tuple[jax.Array, jax.Array]:
    """Means [B, ceil(N / every), D] of `every` neighbouring tokens, and bool: one of them is real."""
    size = -(-states.shape[1] // every)
    room = size * every - states.shape[1]
    weight = jnp.pad(mask, ((0, 0), (0, room))).reshape(len(mask), size, every, 1)
    padded = jnp.pad(states, ((0, 0), (0, room), (0, 0))).reshape(len(mask), size, every, -1)
    total = jnp.where(weight, padded, 0).sum(2)
    return total / jnp.maximum(weight.sum(2), 1), weight.any((2, 3))
