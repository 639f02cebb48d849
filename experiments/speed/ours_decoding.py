"""Our side of decoding."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments.speed.child import forget_peak
from experiments.speed.ours import Compiled, about, check_device, memory_peak, product_peak
from experiments.speed.workloads.base import Sizes
from taichu_jax.config import build
from taichu_jax.inference.decoding import Ids, continuing, write
from taichu_jax.interop.convert import read_model
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.optim import paths


class Greedy:
    """`write` with the decoder of a causal `TextEncoder`, the whole loop jitted."""

    def __init__(self, workload: Any, sizes: Sizes, folder: pathlib.Path, device: str):
        self._device, self._folder, self._sizes = device, folder, sizes
        self._prompt = workload.prompt(sizes)
        self._precision = workload.precision
        compiled = Compiled(lambda: self._make(self._precision), lambda: None)
        self._write, self._arguments = compiled.program, compiled.arguments
        self._facts = compiled.facts

    def ready(self) -> dict[str, Any]:
        check_device(self._device)
        forget_peak()
        count = sum(x.size for x in paths(self._arguments[0]).values())
        return self._facts | about() | {"parameters": count, "flops": None}

    def first_loss(self) -> float:
        """- log P of what is written, in float32, per token."""
        write_ids, arguments = self._write, self._arguments
        if self._precision != "float32":
            function, arguments = self._make("float32")
            write_ids = function.lower(*arguments).compile()
        with jax.default_matmul_precision("highest"):
            found = write_ids(*arguments)
        return -float(found.log_p.mean()) / (self._sizes["length"] - self._sizes["prompt"])

    def step(self) -> dict[str, float]:
        start = time.perf_counter()
        jax.block_until_ready(self._write(*self._arguments))
        return {"seconds": time.perf_counter() - start}

    def peak(self) -> float:
        return product_peak(self._device)

    def memory(self) -> int:
        return memory_peak(self._device)

    def _make(self, precision: str):
        found = read_model(self._folder)
        modules = {name: build(spec, name) for name, spec in found.networks.items()}
        kind = jnp.dtype(precision)
        params = jax.tree.map(lambda x: jnp.array(x, kind), found.params)
        rows, length = len(self._prompt), self._sizes["length"]

        def written(params, prompt):
            cast = None if precision == "float32" else kind
            decoder = continuing(BoundNets(modules, params, compute_dtype=cast), "text", length)
            spelling = Ids(first=0, end=None)
            return write(decoder, decoder.start(rows), prompt, length, ids=spelling)

        return jax.jit(written), (params, jax.device_put(self._prompt))
