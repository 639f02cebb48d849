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

from taichu_jax.errors import UserError
from taichu_jax.training import processes


def start(distributed: bool = False) -> None:
    """Start-up settings of every launcher.

    Args:
      distributed: this is one of several processes; see processes.py.

    Raises:
      UserError: the other processes cannot be found, or nobody said that there are any.
    """
    count = os.environ.get("JAX_NUM_PROCESSES", "1")
    if not distributed and count != "1":
        raise UserError(
            f"JAX_NUM_PROCESSES={count}: of several processes, each needs --distributed true"
        )
    use_compilation_cache()
    for noisy in ("absl", "jax", "orbax", "tensorboardX"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(orbax|jax|flax|tensorboardX)\b")
    if distributed:
        processes.join()


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


def start_alone(launcher: str) -> None:
    """`start` of a launcher that runs as one process.

    Raises:
      UserError: it was started several times as one.
    """
    if found := processes.started_several(os.environ):
        raise UserError(f"{launcher} runs on one process, but {found}; start it once")
    start()


class Interrupt:
    """Turns the first SIGTERM or SIGINT into a wish to stop; the second SIGINT ends the process.

    With several processes a signal to any of them stops all at the same step: JAX catches SIGTERM and
    tells the others, and SIGINT is passed on as SIGTERM.
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
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def wanted(self, step: int) -> bool:
        """Whether to stop after `step`; the answer is the same in all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return bool(self._signal)
