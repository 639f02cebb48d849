"""Processes that are forked before JAX has touched a device, so that a start costs no imports."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable

from taichu_jax.training import runtime


@dataclasses.dataclass
class Child:
    """A process.

    Attributes:
      code: how it ended, -9 if by SIGKILL; None while it lives.
    """

    pid: int
    code: int | None = None


def start(work: Callable[[], object], log: pathlib.Path | None = None) -> Child:
    """Runs `work` in a child; what it says goes to the end of `log`."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Child(pid)
    code = 1
    try:
        if log is not None:
            file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
        runtime.start()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def alive(child: Child) -> bool:
    if child.code is None:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            child.code = os.waitstatus_to_exitcode(status)
    return child.code is None


def end(child: Child) -> int:
    """How it ended; waits for that."""
    while alive(child):
        time.sleep(0.01)
    assert child.code is not None
    return child.code


def kill(child: Child, after: float) -> bool:
    """Sends SIGKILL after some seconds; False if the child was dead before."""
    until = time.monotonic() + after
    while time.monotonic() < until:
        if not alive(child):
            return False
        time.sleep(0.001)
    if not alive(child):
        return False
    os.kill(child.pid, signal.SIGKILL)
    end(child)
    return True
