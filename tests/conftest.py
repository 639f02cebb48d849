"""Settings for every test: eight CPU devices and a persistent compilation cache."""

import importlib.metadata
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Programs run once or twice here, so what counts is compiling them: without LLVM's optimisation it takes
# 0.6 of the time, and a gradient without the fusion emitters 0.3 to 0.4 of that; one LLVM module
# in place of several saves a quarter more. XLA ends the process at a flag that it does not know, so the
# experimental ones are for the versions that they were tried with.
FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", FLAGS)

MAPS = pathlib.Path("/proc/self/maps")
MOST_MAPS = 40_000  # the kernel allows 65,530; every compiled program takes some hundred
CHECK_EVERY = 10  # tests

_tests_done = 0


def pytest_runtest_teardown():
    """Forgets compiled programs before a process has more memory maps than it may."""
    global _tests_done
    _tests_done += 1
    if _tests_done % CHECK_EVERY or "jax" not in sys.modules or not MAPS.exists():
        return
    if MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        sys.modules["jax"].clear_caches()
