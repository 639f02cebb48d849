"""Starts launch/train.py as several processes of one run, on this machine."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from tests.conftest import ROOT

LIMIT = 120  # seconds that anything may take
HEARTBEAT = 5
_GLOO = "[Gloo]"
_GLOO_TAIL = "Expected number of connected peer ranks is"


class Several:
    """Processes that run together, each with its own devices; use it with `with`.

    Args:
      devices: of each.
      arguments: of launch/train.py, for each process.
      folder: where their output goes.
    """

    def __init__(self, devices: int, arguments: list[list[str]], folder: pathlib.Path):
        count = len(arguments)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, str(ROOT / "launch/train.py"), "--distributed", "true"]
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"{index}.txt" for index in range(count)]
        self.programs = []
        for index, output in enumerate(self.outputs):
            environment = os.environ | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(index),
                "TAICHU_HEARTBEAT_SECONDS": str(HEARTBEAT),
            }
            with open(output, "w") as file:
                self.programs.append(
                    subprocess.Popen(
                        [*command, *arguments[index]],
                        cwd=ROOT,
                        env=environment,
                        stdout=file,
                        stderr=file,
                    )
                )

    def __enter__(self) -> Several:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs:
            program.kill()
            program.wait()

    def until(self, path: pathlib.Path) -> None:
        """Waits for a file."""
        deadline = time.monotonic() + LIMIT
        while not path.exists():
            assert all(p.poll() is None for p in self.programs), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def send(self, index: int, number: signal.Signals) -> None:
        """Sends one process a signal."""
        os.kill(self.programs[index].pid, number)

    def codes(self, limit: float = LIMIT) -> list[int]:
        """Exit codes of all, which end within `limit` seconds."""
        deadline = time.monotonic() + limit
        try:
            return [p.wait(max(deadline - time.monotonic(), 0.01)) for p in self.programs]
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"still running: {self.said()}") from late

    def said(self) -> list[list[str]]:
        """The lines of each process, without those of the transport."""
        return [own_lines(path.read_text()) for path in self.outputs]


def own_lines(text: str) -> list[str]:
    """The lines that gloo has not written.

    Its threads write at once, so that the number at the end of a message may stand on a line of its own:
    as many such lines are dropped as messages have lost theirs. A message may also lack its beginning.
    """
    torn = sum(
        not part.strip()[-1:].isdigit()
        for line in text.splitlines()
        if line.startswith(_GLOO)
        for part in line.split(_GLOO)[1:]
    )
    lines = []
    for line in text.splitlines():
        if torn and line.strip().isdigit():
            torn -= 1
        elif not line.startswith(_GLOO) and _GLOO_TAIL not in line:
            lines.append(line)
    return lines
