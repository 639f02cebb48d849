"""The parent's end of a side: starts its process, asks, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
# XLA and PyTorch both ask the kernel anew for the memory of every step; with these, glibc keeps it.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
}


class Failed(Exception):
    """A side could not do what it was asked; the message is its own."""


def environment(scratch: pathlib.Path, cores: tuple[int, ...], device: str) -> dict[str, str]:
    """The variables of both sides: the same allocator, as many threads as cores, no network."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    given = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    return given | {
        **ALLOCATOR,
        **dict.fromkeys(threads, str(len(cores))),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda",
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # two processes share the GPU
    }


class Side:
    """A process that runs one side of one workload.

    Args:
      job: see child.py.
      scratch: where caches and logs go.
      cores: that it may run on.
    """

    def __init__(self, job: dict[str, str], scratch: pathlib.Path, cores: tuple[int, ...]):
        self.name = f"{job['side']} {job.get('mode', '')}".strip()
        self._log = scratch / f"{self.name.replace(' ', '_')}.log"
        with open(self._log, "w", encoding="utf8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "experiments.speed.child", json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=environment(scratch, cores, job["device"]),
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        try:
            self.facts: dict[str, Any] = self.ask("start")
        except BaseException:
            self.close()
            raise

    def ask(self, what: str) -> Any:
        """The answer to a request, waited for.

        Raises:
          Failed: it says why it cannot, or it died.
        """
        pipes = self._process
        assert pipes.stdin is not None and pipes.stdout is not None
        try:
            pipes.stdin.write(json.dumps({"do": what}) + "\n")
            pipes.stdin.flush()
            line = pipes.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self._log.read_text("utf8").strip().splitlines() or ["nothing said"]
            raise Failed(f"{self.name}: ended with code {self._process.wait()}: {said[-1]}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it is dead already
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
