"""Settings for every test: eight CPU devices and a persistent compilation cache."""

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
# Programs run once or twice here: compiling them without LLVM's optimisation takes 0.6 of the time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

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
