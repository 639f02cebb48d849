"""How long a run of the demo's size takes to save and end when it is told to (SIGTERM)."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = "configs/multimodal/taichu_stamps_tiny.py"
NOTICE = 30.0  # seconds that a preempted machine has to live


def soak(
    folder: pathlib.Path, times: int, data_dir: str, seed: int, say: Callable[[str], None]
) -> dict:
    """Starts one run `times` times; each time SIGTERM comes some seconds after the first interval."""
    rng, rows = random.Random(seed), []
    command = [
        *(sys.executable, "-u", "launch/train.py", "--config", CONFIG),
        *("--run_dir", str(folder / "demo"), f"--config.data.dir={data_dir}"),
        *("--config.log_every=2", "--config.steps=100000"),
    ]
    for number in range(1, times + 1):
        told = []
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.rstrip())
            if line.startswith("step ") and "steps/s" in line:
                break
        else:
            raise SystemExit("the demo did not start: " + " | ".join(told[-3:]))
        time.sleep(rng.uniform(0, 3))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=600)
        rows.append(
            {
                "seconds": round(time.monotonic() - began, 2),
                "exit code": process.returncode,
                "saved": "stopped and saved at step" in rest,
                "begun": next((line for line in told if line.startswith("run: ")), ""),
                "before": told[-1],
                "load of the machine": round(os.getloadavg()[0], 1),
            }
        )
        say(f"SIGTERM {number}/{times}: {rows[-1]}")
    return {"notice": NOTICE, "times": rows, "longest": max(row["seconds"] for row in rows)}


def failures(result: dict) -> list[str]:
    """What a soak must not show."""
    return [
        f"SIGTERM: {row}"
        for row in result["times"]
        if row["exit code"] or not row["saved"] or row["seconds"] > NOTICE
    ]
