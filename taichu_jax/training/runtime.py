"""What a program sets before it computes: compilation cache, log levels, processes, signals."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import signal
import warnings
from pathlib import Path

import jax
import jaxlib
from jax.experimental import multihost_utils


def start(distributed: bool = False) -> None:
    """Start-up settings of every launcher.

    Args:
      distributed: this is one of several processes; JAX finds the others through Slurm, the TPU's
        metadata, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    use_compilation_cache()
    for noisy in ("absl", "jax", "orbax", "tensorboardX"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(orbax|jax|flax|tensorboardX)\b")
    if distributed:
        count, index = (os.environ.get(f"JAX_{k}") for k in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )


def use_compilation_cache() -> None:
    """Keeps compiled programs between starts, unless JAX_COMPILATION_CACHE_DIR says where.

    One folder per jaxlib version and CPU: programs of another CPU are rejected at best.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    key = f"{jaxlib.__version__}-{hashlib.sha256(_cpu().encode()).hexdigest()[:12]}"
    folder = Path.home() / ".cache" / "taichu_jax" / "jax" / key
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _cpu() -> str:
    """Model and instruction sets of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


class Interrupt:
    """Turns the first SIGTERM or SIGINT into a wish to stop; the second one ends the process.

    With several processes JAX tells all of them at the same step.
    """

    def __enter__(self) -> Interrupt:
        self._signal = 0
        self._before = {}
        numbers = [signal.SIGINT]
        if jax.process_count() == 1:  # else JAX catches SIGTERM and tells all processes
            numbers.append(signal.SIGTERM)
        for number in numbers:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        del frame
        if self._signal:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = number

    def wanted(self, step: int) -> bool:
        """Whether to stop after `step`; the answer is the same in all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return bool(self._signal)
