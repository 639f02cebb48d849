"""Every self-supervised speech method under one budget, probed in the same way.

    python experiments/speech_ssl/run.py [--steps 400] [--seeds 3] [--only APC,TERA] [--jobs 2]

Same data (the stamps' voices), same batch, same steps, encoders of about the same size; see methods.py.
Runs are side by side, one core each, and what is finished is not done again: the same command goes on
after an interruption. Writes table.md, results.json and the plots beside this file after every run.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from experiments.speech_ssl import table  # noqa: E402 (the path must be set first)
from experiments.speech_ssl.methods import METHODS, Method  # noqa: E402

CLUSTERING = threading.Lock()  # two methods may want the same units


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="configs, for example apc,tera")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--run_dir", default="runs/speech_ssl")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name]
    known = [method.config for method in METHODS]
    if unknown := set(wanted) - set(known):
        sys.exit(f"--only {','.join(sorted(unknown))}: no such config; {', '.join(known)}")
    methods = [m for m in METHODS if not wanted or m.config in wanted]
    compare(methods, arguments)


def compare(methods: list[Method], arguments: argparse.Namespace) -> None:
    """Runs everything, side by side on one core each."""
    cores: SimpleQueue[int] = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[: arguments.jobs]:
        cores.put(core)
    started, total, done = time.monotonic(), len(methods) * arguments.seeds, 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        waiting: list[tuple[Method, int, Future]] = []
        # Seed by seed, so that the table is whole early; what needs another's run comes behind it.
        finished: dict[tuple[str, int], Future] = {}
        for seed in range(arguments.seeds):
            for method in methods:
                before = finished.get((method.units, seed))
                job = pool.submit(one, method, seed, arguments, cores, before)
                finished[method.config, seed] = job
                waiting.append((method, seed, job))
        for method, seed, job in waiting:
            error = job.exception()
            done += 1
            left = (time.monotonic() - started) / done * (total - done) / 60
            state = f"failed: {error}" if error else "done"
            print(f"{done}/{total} {method.label}, seed {seed}: {state}, {left:.0f} min left")
            table.write(HERE, ROOT / arguments.run_dir, arguments.steps)


def one(method: Method, seed: int, arguments: argparse.Namespace, cores, before) -> None:
    """Trains and probes one method with one seed in a process that has one core."""
    if before is not None:
        before.result()
    core = cores.get()
    try:
        run_dir = ROOT / arguments.run_dir / method.config / str(seed)
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        command = [
            "experiments/speech_ssl/one.py",
            *("--config", f"configs/speech/{method.config}_stamps.py:{arguments.steps}"),
            *("--seed", str(seed), "--run_dir", str(run_dir), "--data_dir", arguments.data_dir),
        ]
        if method.units:
            command += ["--units", str(units(method, seed, arguments, core))]
        if seed == 0 and method.config == METHODS[0].config:
            command.append("--log_mel")
        call(command, run_dir.with_suffix(".log"), core)
    finally:
        cores.put(core)


def units(method: Method, seed: int, arguments: argparse.Namespace, core: int) -> pathlib.Path:
    """The folder of a method's units, clustered if need be."""
    base = ROOT / arguments.run_dir
    if method.units == "mfcc_cmvn":
        folder, source = base / "units" / method.units, ["--features", method.units]
    else:
        folder = base / "units" / f"{method.units}_{seed}"
        source = ["--run", str(base / method.units / str(seed)), "--layer", "2"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with CLUSTERING:
        call(
            [
                *("launch/cluster.py", *source, "--to", str(folder)),
                *("--config", f"configs/speech/{method.config}_stamps.py"),
                f"--config.data.dir={arguments.data_dir}",
            ],
            folder.with_suffix(".log"),
            core,
        )
    return folder


def call(command: list[str], log: pathlib.Path, core: int) -> None:
    """Runs a Python program on one core; its words go to `log`.

    Raises:
      RuntimeError: it failed; with its last line.
    """
    one_core = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    with open(log, "a", encoding="utf8") as file:
        result = subprocess.run(
            [sys.executable, *command], cwd=ROOT, stdout=file, stderr=file, preexec_fn=one_core
        )
    if result.returncode:
        lines = log.read_text("utf8").strip().splitlines() or ["nothing said"]
        raise RuntimeError(f"{lines[-1]} ({log})")


if __name__ == "__main__":
    main()
