"""PyTorch's side of decoding."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import torch

from experiments.speed.child import forget_peak
from experiments.speed.theirs import (
    about,
    begin,
    memory_peak,
    product_peak,
    synchronise,
    tensor,
    write_weights,
)
from experiments.speed.workloads.base import Sizes


class Greedy:
    """`generate` of transformers; compiled, the model has a static cache and the loop stays Python."""

    def __init__(self, workload: Any, sizes: Sizes, folder: pathlib.Path, device: str, mode: str):
        self._where, self._device, self._sizes = begin(device), device, sizes
        self._model = workload.model(sizes).eval().to(self._where)
        write_weights(workload, self._model, folder)
        self._kind = getattr(torch, workload.precision)
        self._prompt = tensor(workload.prompt(sizes)).to(self._where)
        self._settings: dict[str, Any] = {}
        self._compile = mode == "compile"

    def ready(self) -> dict[str, Any]:
        forget_peak()
        return about()

    def first_loss(self) -> float:
        """- log P of what is written, in float32, per token; afterwards the model is what is timed."""
        found = self._written(output_logits=True, return_dict_in_generate=True)
        new = found.sequences[:, self._prompt.shape[1] :]
        log_p = torch.stack(found.logits, 1).float().log_softmax(-1).gather(-1, new[..., None])
        self._model.to(self._kind)
        if self._compile:
            self._model.forward = torch.compile(self._model.forward)
            self._settings = {"cache_implementation": "static"}
        return -float(log_p.mean())

    def step(self) -> dict[str, float]:
        synchronise(self._device)
        start = time.perf_counter()
        self._written()
        synchronise(self._device)
        return {"seconds": time.perf_counter() - start}

    def peak(self) -> float:
        return product_peak(self._device)

    def memory(self) -> int:
        return memory_peak(self._device)

    def _written(self, **more: Any) -> Any:
        new = self._sizes["length"] - self._sizes["prompt"]
        with torch.no_grad():
            return self._model.generate(
                self._prompt,
                attention_mask=torch.ones_like(self._prompt),
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                use_cache=True,
                **self._settings,
                **more,
            )
