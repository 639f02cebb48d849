"""PyTorch's side of a workload, in a process without JAX."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import time
from typing import Any

import numpy as np
import torch

from experiments.speed.child import forget_peak, resident_peak
from experiments.speed.workloads.base import DECAY, RATE, SEED, Sizes, Train

MODES = ("eager", "compile")
DRAWS = "draws.npz"  # as ours.py writes it
PEAK_SIDE = {"cpu": 1024, "gpu": 8192}
WRITTEN = "weights.done"


def begin(device: str) -> str:
    """Threads and seed; returns PyTorch's name of the device.

    Raises:
      RuntimeError: there is no such device.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(SEED)
    if device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no GPU")
    return "cpu" if device == "cpu" else "cuda"


def about() -> dict[str, Any]:
    """What every side of PyTorch's tells of itself."""
    packages = ("torch", "transformers")
    return {"versions": {name: importlib.metadata.version(name) for name in packages}}


def memory_peak(device: str) -> int:
    """Bytes."""
    return resident_peak() if device == "cpu" else torch.cuda.max_memory_allocated()


def product_peak(device: str) -> float:
    """The best of five products of two square matrices, FLOP/s; bfloat16 on a GPU."""
    side, where = PEAK_SIDE[device], "cpu" if device == "cpu" else "cuda"
    a = torch.full((side, side), 0.5, device=where)
    a = a if device == "cpu" else a.bfloat16()
    times = []
    with torch.no_grad():
        for _ in range(6):
            synchronise(device)
            start = time.perf_counter()
            a @ a
            synchronise(device)
            times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times[1:])


def synchronise(device: str) -> None:
    """Waits for the GPU."""
    if device != "cpu":
        torch.cuda.synchronize()


def write_weights(workload: Any, model: Any, folder: pathlib.Path) -> None:
    """Saves the model unless an earlier process did: the seed is the same, and so are the weights."""
    if not (folder / WRITTEN).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        workload.save(model, folder)
        (folder / WRITTEN).touch()


class TrainStep:
    """Forward, backward and a fused AdamW; bfloat16 by autocast on a GPU."""

    def __init__(self, workload: Train, sizes: Sizes, folder: pathlib.Path, device: str, mode: str):
        self._where, self._device = begin(device), device
        self._workload, self._sizes, self._folder = workload, sizes, folder
        model = workload.model(sizes).train()
        write_weights(workload, model, folder)
        self._model = model.to(self._where)
        self._called = torch.compile(self._model) if mode == "compile" else self._model
        self._optimizer = torch.optim.AdamW(
            [p for p in self._model.parameters() if p.requires_grad],
            lr=RATE,
            weight_decay=DECAY,
            fused=True,
        )
        self._inputs: dict[str, torch.Tensor] = {}
        self._updates = 0

    def ready(self) -> dict[str, Any]:
        forget_peak()
        return about()

    def first_loss(self) -> float:
        """With our draws, in float32, without an update."""
        with torch.no_grad():
            return float(self._workload.first_loss(self._model, self._given()))

    def step(self) -> dict[str, float]:
        """`number` counts the updates before it."""
        inputs = self._given()
        synchronise(self._device)
        start = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._where, torch.bfloat16, enabled=self._device != "cpu"):
            loss = self._workload.loss(self._called, inputs)
        loss.backward()
        self._optimizer.step()
        synchronise(self._device)
        seconds = time.perf_counter() - start
        self._updates += 1
        return {"seconds": seconds, "loss": float(loss.detach()), "number": self._updates - 1}

    def peak(self) -> float:
        return product_peak(self._device)

    def memory(self) -> int:
        return memory_peak(self._device)

    def _given(self) -> dict[str, torch.Tensor]:
        if not self._inputs:
            with np.load(self._folder / DRAWS) as drawn:
                arrays = self._workload.inputs(
                    self._workload.batch(self._sizes), dict(drawn), self._sizes
                )
            self._inputs = {k: tensor(v).to(self._where) for k, v in arrays.items()}
        return self._inputs


def tensor(array: np.ndarray) -> torch.Tensor:
    """A copy; whole numbers as int64, which PyTorch wants for ids and labels."""
    if np.issubdtype(array.dtype, np.integer):
        array = array.astype(np.int64)
    return torch.tensor(array)
