"""What a workload is: one model, one batch, and how each of the two libraries runs it.

A module of this package imports neither JAX nor PyTorch at its head: the process of each side imports
its own inside the methods, and never the other's.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

SIZES = ("tiny", "base")
SEED = 0  # of weights, batches and draws
OBJECTIVE = "loss"  # the name of the one objective of a train step
STREAM = "stream"
RATE = 1e-4
DECAY = 0.01  # of all parameters, as torch.optim.AdamW does it
Sizes = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What every workload has.

    Attributes:
      name: on the command line.
      label: in the table.
      unit: what is counted per second.
      goal: the largest wanted ratio of the medians, ours to theirs, on CPUs; None for no goal.
      memory_goal: the same for the peak memory.
      same_work: both sides do the same products, so that one count of FLOPs holds for both.
      tiny, base: sizes; base holds on CPUs.
      gpu: what is different on a GPU.
    """

    name: str
    label: str
    unit: str
    goal: float | None = None
    memory_goal: float | None = None
    same_work: bool = True
    tiny: Sizes
    base: Sizes
    gpu: Sizes = dataclasses.field(default_factory=dict)

    def sizes(self, size: str, device: str) -> Sizes:
        """The numbers that one row of the table is made with."""
        if size == "tiny":
            return self.tiny
        return self.base | (self.gpu if device == "gpu" else {})

    def modes(self, torch_modes: tuple[str, ...]) -> tuple[str, ...]:
        """Of the ways to run PyTorch, those that mean something here."""
        return torch_modes

    def same_steps(self, device: str) -> bool:
        """Whether later losses must agree as the first does."""
        del device
        return False

    def ours(self, sizes: Sizes, folder: pathlib.Path, device: str) -> Any:
        """Our side; see `experiments.speed.child`."""
        raise NotImplementedError

    def theirs(self, sizes: Sizes, folder: pathlib.Path, device: str, mode: str) -> Any:
        """PyTorch's side."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Workload):
    """A train step: forward, backward, AdamW.

    Attributes:
      draws_in_step: our objective draws masks or noise in every step. PyTorch gets those of the first
        step, once.
      frozen: pattern of the parameters that neither side trains; empty for none.
    """

    memory_goal: float | None = 1.1
    draws_in_step: bool = True
    frozen: str = ""

    def same_steps(self, device: str) -> bool:
        return not self.draws_in_step and device == "cpu"  # on GPUs bfloat16 rounds too much

    def ours(self, sizes, folder, device):
        from experiments.speed.ours import TrainStep

        return TrainStep(self, sizes, folder, device)

    def theirs(self, sizes, folder, device, mode):
        from experiments.speed.theirs import TrainStep

        return TrainStep(self, sizes, folder, device, mode)

    # ------------------------------------------------------------------------ both sides

    def batch(self, sizes: Sizes) -> dict[str, np.ndarray]:
        """The fields that our objective reads."""
        raise NotImplementedError

    def units(self, sizes: Sizes) -> float:
        """How many of `unit` there are in a batch."""
        raise NotImplementedError

    # -------------------------------------------------------------------------- PyTorch

    def model(self, sizes: Sizes) -> Any:
        """A new torch.nn.Module."""
        raise NotImplementedError

    def save(self, model: Any, folder: pathlib.Path) -> None:
        """Writes config.json and safetensors."""
        model.save_pretrained(folder)

    def inputs(self, batch: dict, draws: dict, sizes: Sizes) -> dict[str, np.ndarray]:
        """What `loss` reads, from our batch and the draws of our first step."""
        raise NotImplementedError

    def loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The same loss as ours, a scalar tensor."""
        raise NotImplementedError

    def first_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The loss with the draws of our first step, where `loss` draws something anew."""
        return self.loss(model, inputs)

    # ------------------------------------------------------------------------------ JAX

    def read(self, sizes: Sizes, folder: pathlib.Path) -> tuple[dict, dict]:
        """(networks, parameters) from the folder that PyTorch wrote."""
        from taichu_jax.config import build
        from taichu_jax.interop.convert import read_model

        found = read_model(folder)
        return {name: build(spec, name) for name, spec in found.networks.items()}, found.params

    def objective(self, sizes: Sizes) -> Any:
        """Our loss."""
        raise NotImplementedError

    def draws(self, key: Any, batch: dict, sizes: Sizes, modules: dict) -> dict[str, Any]:
        """What the objective draws from `key`, for `inputs`; jitted by the caller."""
        del key, batch, sizes, modules
        return {}


def tokens(vocabulary: int, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """int32 ids above the special ones."""
    return np.random.default_rng(seed).integers(6, vocabulary, shape).astype(np.int32)


def pictures(batch: int, side: int) -> np.ndarray:
    """float32 [B, H, W, 3] in [0, 1]."""
    return np.random.default_rng(SEED).random((batch, side, side, 3), np.float32)


def scaled(images: np.ndarray) -> np.ndarray:
    """What PyTorch's models read of pictures: colours first, in [-1, 1]."""
    return np.ascontiguousarray(((images - 0.5) / 0.5).transpose(0, 3, 1, 2))


def save_with_processor(model: Any, folder: pathlib.Path) -> None:
    """Writes the model, and the scale of pixels that `scaled` has."""
    import json

    model.save_pretrained(folder)
    scale = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(scale), "utf8")
