"""One side of a workload in a process of its own, which does what its parent asks, line by line.

Started by process.py: `python -m experiments.speed.child JOB`, JOB being JSON with the keys workload,
size, device, side ('ours' or 'theirs'), mode (of PyTorch) and folder. Requests and answers are lines of
JSON: {"do": "start"} first, then {"do": NAME} for a method of the side; {"result": ...} or {"error":
text}. Nothing else is ever written to standard output.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import traceback
import warnings

METHODS = ("first_loss", "step", "peak", "memory")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    warnings.filterwarnings("ignore")
    job = json.loads(sys.argv[1])
    side = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "start":
                from experiments.speed.workloads import WORKLOADS

                workload, folder = WORKLOADS[job["workload"]], pathlib.Path(job["folder"])
                given = (workload.sizes(job["size"], job["device"]), folder, job["device"])
                if job["side"] == "ours":
                    side = workload.ours(*given)
                else:
                    side = workload.theirs(*given, job["mode"])
                answer = {"result": side.ready()}
            elif request["do"] in METHODS:
                answer = {"result": getattr(side, request["do"])()}
            else:
                raise ValueError(f"{request['do']}: not one of {METHODS}")
        except Exception as error:  # told, so that the other workloads go on
            lines = str(error).strip().splitlines() or ["nothing said"]
            answer = {"error": f"{type(error).__name__}: {lines[0]}"}
            traceback.print_exc(file=sys.stderr)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def resident_peak() -> int:
    """The most bytes that were in memory since `forget_peak`."""
    for line in pathlib.Path("/proc/self/status").read_text("utf8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def forget_peak() -> None:
    """Lets the peak begin at what is in memory now."""
    import gc

    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5", "utf8")


if __name__ == "__main__":
    main()
