"""Where the numbers were made: CPU, GPU, memory, and the variables that change speed."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
from typing import Any

from experiments.speed.process import ALLOCATOR

FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "TORCH_LOGS", "JAX_ENABLE_X64", "NVIDIA_TF32_OVERRIDE")
# Dense bfloat16 products of NVIDIA's data sheets, FLOP/s; the first name found in the device's counts.
PUBLISHED = {"H200": 989.4e12, "H100 PCIe": 756e12, "H100": 989.4e12, "A100": 312e12}


def device() -> str:
    """'gpu' where NVIDIA's driver shows a device, else 'cpu'."""
    return "gpu" if pathlib.Path("/dev/nvidia0").exists() else "cpu"


def cores() -> list[int]:
    """Those that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def machine(which: str) -> dict[str, Any]:
    """What this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    if which == "gpu":
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return found


def flags() -> dict[str, str]:
    """What was set for the measured processes beside their defaults."""
    return ALLOCATOR | {name: os.environ[name] for name in FLAGS if os.environ.get(name)}


def published_peak(kind: str) -> float | None:
    """FLOP/s of bfloat16 products by the data sheet; None of a device that is not listed."""
    return next((peak for name, peak in PUBLISHED.items() if name in kind), None)


def _cpu() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
