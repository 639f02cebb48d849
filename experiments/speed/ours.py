"""Our side of a workload, in a process without PyTorch."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from experiments.speed.child import forget_peak, resident_peak
from experiments.speed.workloads.base import DECAY, OBJECTIVE, RATE, SEED, STREAM, Sizes, Train
from taichu_jax.compiled.products import product_flops
from taichu_jax.interop import convert  # noqa: F401 (before the fork, so that it is imported once)
from taichu_jax.ops.random import fold_name
from taichu_jax.training import compiler
from taichu_jax.training.balance.fixed import Fixed
from taichu_jax.training.optim import AdamW, Optimizer, Rule, paths
from taichu_jax.training.state import TrainState
from taichu_jax.training.step import make_loss, make_step

DRAWS = "draws.npz"  # beside the weights
PEAK_SIDE = {"cpu": 1024, "gpu": 8192}


def in_fork(work: Callable[[], Any]) -> Any:
    """What `work` returns (JSON) in a copy of this process, which leaves nothing behind here.

    Programs are compiled there first: what compiling leaves in memory would lie between the buffers of
    the measured steps. JAX must not have computed anything yet, or the copy would hang.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that JAX has threads, which it has not yet
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, json.dumps(work()).encode())
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, encoding="utf8") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("compiling failed; the log has the reason")
    return json.loads(answer)


def check_device(device: str) -> None:
    """Raises RuntimeError where JAX has another device than was asked for."""
    if jax.default_backend() != device:
        raise RuntimeError(f"JAX runs on {jax.default_backend()}, not on {device}")


def about() -> dict[str, Any]:
    """What every side of ours tells of itself."""
    versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "flax": flax.__version__}
    return {"versions": versions, "device": jax.devices()[0].device_kind}


def memory_peak(device: str) -> int:
    """Bytes."""
    if device == "cpu":
        return resident_peak()
    return int(jax.devices()[0].memory_stats()["peak_bytes_in_use"])


def product_peak(device: str) -> float:
    """The best of five products of two square matrices, FLOP/s; bfloat16 on a GPU."""
    side, kind = PEAK_SIDE[device], jnp.float32 if device == "cpu" else jnp.bfloat16
    a = jnp.full((side, side), 0.5, kind)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def with_fused(module):
    """The network with fused attention, if it has a stack of blocks."""
    stack = getattr(module, "stack", None)
    if stack is None:
        return module
    return module.clone(stack=dataclasses.replace(stack, attention="fused"))


class Compiled:
    """A jitted function, compiled twice: anew in a fork, then from the persistent cache.

    Attributes:
      facts: seconds of tracing and compiling, cold and warm, and the function's FLOPs.
    """

    def __init__(self, make: Callable[[], tuple[Any, tuple]], beside: Callable[[], None]):
        """`make` returns (jitted, arguments); `beside` is run in the fork, too."""

        def cold():
            times, *_ = self._timed(make)
            beside()
            return times

        first = in_fork(cold)
        warm, self.program, self.arguments, flops = self._timed(make)
        self.facts = {"cold": first, "warm": warm, "flops": flops}

    def _timed(self, make):
        function, arguments = make()
        start = time.perf_counter()
        traced = function.trace(*arguments)
        lowered = traced.lower()
        between = time.perf_counter()
        program = lowered.compile()
        times = {"trace": between - start, "compile": time.perf_counter() - between}
        return times, program, arguments, product_flops(traced.jaxpr)


class TrainStep:
    """The step of taichu_jax/training/step.py, jitted with donation as the training loop does it."""

    def __init__(self, workload: Train, sizes: Sizes, folder: pathlib.Path, device: str):
        self._workload, self._sizes, self._device = workload, sizes, device
        self._folder = folder
        self._batch = workload.batch(sizes)
        compiled = Compiled(self._make, self._save_draws)
        self._step, self._facts = compiled.program, compiled.facts
        self._state, self._streams = compiled.arguments
        del compiled

    def ready(self) -> dict[str, Any]:
        check_device(self._device)
        forget_peak()
        count = sum(x.size for x in paths(self._state.params).values())
        return self._facts | about() | {"parameters": count}

    def step(self) -> dict[str, float]:
        """`number` counts the updates before it."""
        number = int(self._state.step)
        start = time.perf_counter()
        self._state, metrics = self._step(self._state, self._streams)
        jax.block_until_ready((self._state, metrics))
        seconds = time.perf_counter() - start
        total, count = metrics["loss"]
        return {"seconds": seconds, "loss": float(total / count), "number": number}

    def first_loss(self) -> float:
        """In float32: on CPUs that of the first step, else that of a forward pass."""
        if self._device == "cpu":
            return self.step()["loss"]
        state = self._state
        with jax.default_matmul_precision("highest"):
            value, _ = jax.jit(make_loss(self._modules, self._objectives, SEED))(
                state.params, state.teachers, state.memory, self._streams, state.step
            )
        return float(value)

    def peak(self) -> float:
        return product_peak(self._device)

    def memory(self) -> int:
        return memory_peak(self._device)

    def _make(self):
        workload, sizes = self._workload, self._sizes
        self._modules, params = workload.read(sizes, self._folder)
        if self._device == "gpu":
            self._modules = {name: with_fused(module) for name, module in self._modules.items()}
        self._objectives = {OBJECTIVE: workload.objective(sizes)}
        frozen = (Rule(pattern=workload.frozen, rate=0.0),) if workload.frozen else ()
        optimizer = Optimizer(
            AdamW(
                learning_rate=RATE,
                b2=0.999,
                weight_decay=DECAY,
                clip=None,
                rules=(*frozen, Rule(pattern=".*")),
            )
        )
        params = jax.tree.map(jnp.array, params)  # copies: buffers that can be donated
        memory = {name: o.memory(jax.random.key(SEED)) for name, o in self._objectives.items()}
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimizer.init(params),
            teachers={OBJECTIVE: {}},
            memory=memory,
            balance=Fixed().start([OBJECTIVE], optimizer.split(params)[0]),
        )
        step = make_step(
            self._modules,
            self._objectives,
            optimizer,
            seed=SEED,
            compute_dtype=None if self._device == "cpu" else jnp.dtype("bfloat16"),
        )
        batch = jax.device_put({STREAM: self._batch})
        told = compiler.options(jax.default_backend())
        return jax.jit(step, donate_argnums=0, compiler_options=told), (state, batch)

    def _save_draws(self) -> None:
        """What the first step draws, for the other side."""
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), 0), 0)
        workload, sizes, modules = self._workload, self._sizes, self._modules
        draw = jax.jit(lambda key, batch: workload.draws(key, batch, sizes, modules))
        drawn = draw(fold_name(key, OBJECTIVE), self._batch)
        np.savez(self._folder / DRAWS, **{k: np.asarray(v) for k, v in drawn.items()})
