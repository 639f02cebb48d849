"""Models of transformers, written as their users write them and read as launch/convert.py reads them."""

from __future__ import annotations

import jax
import numpy as np

from taichu_jax.config import build
from taichu_jax.interop.convert import read_model
from taichu_jax.interop.rules import to_ours
from taichu_jax.interop.tensors import read_tensors
from tests.parity.theirs import torch

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attn_implementation": "eager",
}


def moved(model, seed: int = 0, size: float = 0.2):
    """The model, its parameters moved at random, so that no bias is 0 and no scale 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.train()


class Pair:
    """A model of theirs, its file, and ours with its weights.

    Attributes:
      read: what was read from the file.
      modules: ours, by name.
    """

    def __init__(self, kind, config, folder):
        torch.manual_seed(0)
        model = kind(config)
        self.theirs, self._folder = moved(model), folder
        model.save_pretrained(folder)
        self.read = read_model(folder)
        self.modules = {name: build(spec) for name, spec in self.read.networks.items()}
        self.params = self.read.params

    def gradients(self) -> dict:
        """Theirs, by our parameters, after a backward pass; zero for what it did not reach.

        They are written to a file in place of the weights, because a file's names are not the model's.
        """
        with torch.no_grad():
            for p in self.theirs.parameters():
                p.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
        self.theirs.save_pretrained(self._folder / "gradients")
        found = read_tensors(self._folder / "gradients")
        return to_ours(self.read.table, found, self.params, where="gradients")

    def apply(self, name: str, params, *args, method=None, **kwargs):
        """Calls one of our networks."""
        return self.modules[name].apply({"params": params[name]}, *args, method=method, **kwargs)


def value_and_gradients(loss, params):
    """(value, what the loss returns beside, gradients), jitted."""
    (value, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, found, gradients


def tensor(x):
    return torch.tensor(np.array(x))
