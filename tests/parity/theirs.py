"""PyTorch models as references: their weights, gradients and layers, and the noise they are to draw."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
import sys
import types
from collections.abc import Iterable
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; see requirements-test.txt")
torch.set_num_threads(1)

EPSILON = 1e-6  # of our layer norms; most packages take 1e-5


def randomised(model, seed: int = 0, size: float = 0.2):
    """The model, its parameters moved at random, so that no bias is 0 and no scale 1.

    Weight normalisation is folded into plain kernels, and layer norms get our epsilon, where their
    constructor leaves no choice.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm) and module.elementwise_affine:
            module.eps = EPSILON
        if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.train()


def weights(model) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def gradients(model) -> dict[str, np.ndarray]:
    """After a backward pass; zero for what it did not reach."""
    return {
        name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy()
        for name, p in model.named_parameters()
    }


def outputs_of(modules: Iterable) -> list:
    """A list that every call of one of the modules appends its output to."""
    found: list = []

    def keep(module, args, output):
        found.append(output[0] if isinstance(output, tuple) else output)

    for module in dict.fromkeys(modules):  # shared layers are one module
        module.register_forward_hook(keep)
    return found


def give_gumbel(monkeypatch, draws: list[np.ndarray]) -> None:
    """The next calls of torch's gumbel_softmax draw these numbers.

    It takes -log of exponential noise for Gumbel noise, and nothing else here draws such noise.
    """
    left = [torch.exp(-torch.tensor(np.array(draw))) for draw in draws]
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: left.pop(0).reshape(self.shape))


class _Empty(types.ModuleType):
    """Stands for a module of which only names are imported."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def s3prl(*names: str) -> list:
    """Modules of s3prl 0.4.18, as 'upstream.apc.apc' and 'pretrain.npc.pretrain_expert'.

    They are loaded from their files. s3prl as a whole imports torchaudio, whose newest release does not
    load beside the PyTorch of requirements-test.txt; the models and losses need nothing of it, nor of
    the data sets and sound files for which empty modules stand here.
    """
    found = importlib.util.find_spec("s3prl")
    if found is None:
        pytest.skip(
            "s3prl is not installed: pip install --no-deps s3prl==0.4.18", allow_module_level=True
        )
    root = pathlib.Path(found.submodule_search_locations[0])
    empty = (
        "torchaudio s3prl s3prl.optimizers utility utility.audio upstream.baseline"
        " upstream.baseline.extracter upstream.baseline.preprocessor pretrain.apc.dataset"
        " pretrain.mockingjay.dataset"
    )
    modules = {name: _Empty(name) for name in empty.split()}
    for package in ("upstream", "pretrain"):
        modules[package] = types.ModuleType(package)
        modules[package].__path__ = [str(root / package)]
    with mock.patch.dict(sys.modules, modules):
        return [importlib.import_module(name) for name in names]
