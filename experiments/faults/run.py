"""Kills, watches and interrupts small runs, and counts what is lost.

    python experiments/faults/run.py [--only kills,memory,notice] [--kills 50] [--steps 10000]

kills     one run under SIGKILL, at random and chosen instants, against the same run left alone
memory    a long run: memory, open files, threads and compilations must stay as they are
notice    SIGTERM to a run of the demo's size; needs prepared data (--data_dir)

Takes about ten minutes on two cores. Results go to results.json beside this file, one entry for each
part; exit code 1 if anything was lost, repeated in the record, leaked or late.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from experiments.faults import kills, memory, notice  # noqa: E402 (the path must be set first)

PARTS = ("kills", "memory", "notice")
RESULTS = HERE / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, for example kills,memory")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10_000, help="of the long run")
    parser.add_argument("--signals", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_dir", default="data")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"--only {','.join(sorted(unknown))}: no such part; {', '.join(PARTS)}")
    bad = []
    for part in wanted:
        with tempfile.TemporaryDirectory() as name:
            folder, say = pathlib.Path(name), lambda text: print(text, flush=True)
            if part == "kills":
                result = kills.soak(folder, arguments.kills, arguments.seed, say)
                failed = kills.failures(result)
            elif part == "memory":
                result = memory.soak(folder, arguments.steps, say)
                failed = memory.failures(result)
            else:
                result = notice.soak(
                    folder, arguments.signals, arguments.data_dir, arguments.seed, say
                )
                failed = notice.failures(result)
        write(part, result | {"failures": failed})
        print(json.dumps({k: v for k, v in result.items() if k != "every"}, indent=1))
        bad += failed
    for line in bad:
        print("FAILED:", line)
    sys.exit(1 if bad else 0)


def write(part: str, result: dict) -> None:
    """Adds one part's result; those of the others stay."""
    results = json.loads(RESULTS.read_text("utf8")) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(results | {part: result}, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main()
