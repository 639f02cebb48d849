"""The contract: any encoder gives hidden states of every layer, with their rate.

`hidden_states` is a pure function from (params, inputs) to `Encoded`: `layers` of the input and of every
block, `tokens` of the last one normalised, `mask`, and `rate`: tokens a second of speech, rows of
patches of a picture. A network keeps the contract if it returns an `Encoded` for what a reader of its
modality gives; that is found out from shapes alone. Converted networks keep it like those trained here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.models.layers import Encoded, masked_mean
from taichu_jax.ops.random import fold_name
from taichu_jax.probing.readers import Reader, TextReader, zeros

PyTree = Any
Inputs = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One network with weights, and how it reads an example.

    Attributes:
      name: of the network.
      modality: 'speech', 'image' or 'text'.
      hidden_states: (params, inputs) -> Encoded; pure.
      create: () -> params that were not trained.
      pool: (Encoded, inputs) -> one vector [B, D] for every layer.
    """

    name: str
    modality: str
    reader: Reader
    hidden_states: Callable[[PyTree, Inputs], Encoded]
    params: PyTree
    create: Callable[[], PyTree]
    pool: Callable[[Encoded, Inputs], tuple[jax.Array, ...]]

    @functools.cached_property
    def shapes(self) -> Encoded:
        """What it returns for one example, as shapes."""
        return jax.eval_shape(self.hidden_states, self.params, zeros(self.reader, 1))

    @property
    def layer_names(self) -> list[str]:
        """Of what `every_layer` returns; nameless if it is the only one."""
        inner = len(self.shapes.layers)
        if not inner:
            return [""]
        return ["input", *(f"block {i}" for i in range(1, inner)), "last"][-inner - 1 :]

    @property
    def widths(self) -> list[int]:
        """Of every layer."""
        return [x.shape[-1] for x in every_layer(self.shapes)]

    def untrained(self) -> Encoder:
        """The same network with weights that were not trained."""
        return dataclasses.replace(self, params=self.create())

    def reading(self, reader: Reader) -> Encoder:
        """The same network with another reader."""
        return dataclasses.replace(self, reader=reader)


def of_network(name: str, modality: str, reader: Reader, module, params, seed: int) -> Encoder:
    """The encoder of a Flax module."""
    taken = 2 if isinstance(reader, TextReader) else None  # not the numbers of words

    def hidden_states(params, inputs):
        return module.apply({"params": params}, *inputs[:taken])

    def create():
        # As training/state.py draws the weights a run with this seed starts from.
        key = fold_name(fold_name(jax.random.key(seed), "params"), name)
        fresh = jax.jit(lambda: module.init(key, *zeros(reader, 1)[:taken])["params"])()
        return _laid(params, fresh)

    return Encoder(name, modality, reader, hidden_states, params, create, means)


def keeps_contract(module, params: PyTree, reader: Reader) -> bool:
    """Whether the module, called with what the reader gives, returns hidden states."""
    taken = 2 if isinstance(reader, TextReader) else None
    inputs = zeros(reader, 1)[:taken]
    try:
        found = jax.eval_shape(lambda p, x: module.apply({"params": p}, *x), params, inputs)
    except Exception:  # a network for other inputs raises whatever it likes
        return False
    return isinstance(found, Encoded)


def every_layer(encoded: Encoded) -> tuple[jax.Array, ...]:
    """States [B, N, D] of the input, of every block, and the last ones normalised."""
    return (*encoded.layers, encoded.tokens)


def means(encoded: Encoded, inputs: Inputs) -> tuple[jax.Array, ...]:
    """Means [B, D] over the real tokens of every layer, float32."""
    del inputs
    return tuple(masked_mean(x.astype(jnp.float32), encoded.mask) for x in every_layer(encoded))


def _laid(trained: PyTree, fresh: PyTree) -> PyTree:
    """Fresh parameters; of those that a plain call does not create, heads for example, the trained."""
    if not isinstance(trained, Mapping):
        return fresh
    return {k: _laid(v, fresh[k]) if k in fresh else v for k, v in trained.items()}


def parameters(params: PyTree) -> int:
    """How many numbers."""
    return sum(int(np.size(x)) for x in jax.tree.leaves(params))
