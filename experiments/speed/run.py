"""Measures this project's models beside PyTorch's: same weights, same batch, in turn.

python experiments/speed/run.py
python experiments/speed/run.py --only bert,gpt2 --cores 2,3
python experiments/speed/run.py --size tiny --repeats 2

--only NAMES   of the workloads, with commas between; all by default (README.md lists them)
--size SIZE    base (default) or tiny, which only shows that everything works
--repeats N    turns of either side that count; 11 by default, 7 at least for base
--cores LIST   cores that both sides run on, 0 by default
--torch MODE   best (default) measures the faster of eager and compile; or one of these two
--out DIR      where results.json and table.md go: this folder, or runs/speed for tiny

On a machine with an NVIDIA GPU both sides use it, in bfloat16. Needs PyTorch and transformers
(requirements-test.txt). Rows of workloads that are not measured stay if machine, versions and
settings are those of results.json. Exit code 1 if a workload failed or its losses differ.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from taichu_jax import cli  # noqa: E402 (the path must be set first)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "numpy", "grain")
LEAST = 7  # turns of a median that is worth reporting


def run(arguments: list[str]) -> None:
    """Measures, and writes the results after every workload."""
    from experiments.speed import machine, startup, table
    from experiments.speed.compare import compare
    from experiments.speed.process import Failed
    from experiments.speed.workloads import WORKLOADS

    flags = {
        "only": "",
        "size": "base",
        "repeats": "11",
        "cores": "0",
        "torch": "best",
        "out": "",
    }
    flags = cli.parse(arguments, flags)
    names, options = check(flags, (*WORKLOADS, startup.NAME), machine.device())
    default = HERE if options.size == "base" else ROOT / "runs" / "speed"
    out = pathlib.Path(flags["out"]) if flags["out"] else default
    results = begin(out / "results.json", surroundings(options))
    bad = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="speed_") as folder:
            scratch = pathlib.Path(folder)
            if name == startup.NAME:
                try:
                    found = startup.measure(options.repeats, scratch, options.cores)
                    row: dict[str, Any] = {"commands": found}
                except Failed as error:
                    row = {"label": "start", "failed": str(error)}
            else:
                row = compare(WORKLOADS[name], options, scratch)
        rows = results["rows"] | {name: row}
        known = (*WORKLOADS, startup.NAME)
        results["rows"] = {n: rows[n] for n in sorted(rows, key=known.index)}
        (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf8")
        table.write(results, out / "table.md")
        if reason := row.get("refused") or row.get("failed"):
            bad.append(name)
            print(f"{name}: {reason}", file=sys.stderr, flush=True)
        else:
            print(f"{name}: {told(row)}", flush=True)
    if bad:
        sys.exit(1)


def check(flags: dict[str, str], known: tuple[str, ...], device: str) -> tuple[list[str], Any]:
    """(names of the workloads, options).

    Raises:
      UserError: a wrong value, or PyTorch is not there.
    """
    from experiments.speed import machine
    from experiments.speed.compare import Options
    from experiments.speed.workloads.base import SIZES
    from taichu_jax.config import choices
    from taichu_jax.errors import UserError

    wanted = [name.strip() for name in flags["only"].split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UserError(f"--only={name}: no such workload; {choices(name, known)}")
    size, mode = flags["size"], flags["torch"]
    if size not in SIZES:
        raise UserError(f"--size={size}: {choices(size, SIZES)}")
    modes = ("best", "eager", "compile")
    if mode not in modes:
        raise UserError(f"--torch={mode}: {choices(mode, modes)}")
    repeats, least = int(cli.number("repeats", flags["repeats"])), LEAST if size == "base" else 1
    if repeats < least:
        raise UserError(f"--repeats={repeats}: must be at least {least} with --size {size}")
    there = machine.cores()
    cores = []
    for text in flags["cores"].split(","):
        if not text.strip().isdigit() or int(text) not in there:
            raise UserError(
                f"--cores={flags['cores']}: {text!r} is no core; {choices(text, there)}"
            )
        cores.append(int(text))
    for package in missing():
        raise UserError(f"{package} is not installed; pip install -r requirements-test.txt")
    options = Options(
        size=size,
        repeats=repeats,
        cores=tuple(sorted(set(cores))),
        device=device,
        modes=modes[1:] if mode == "best" else (mode,),
    )
    return [name for name in known if name in wanted or not wanted], options


def missing() -> list[str]:
    """Of the packages to compare with, those that are not installed."""
    return [p for p in ("torch", "transformers") if importlib.util.find_spec(p) is None]


def surroundings(options: Any) -> dict[str, Any]:
    """What rows of one table must have in common."""
    from experiments.speed import machine

    return {
        "machine": machine.machine(options.device),
        "device": options.device,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "flags": machine.flags(),
        "size": options.size,
        "cores": list(options.cores),
    }


def begin(path: pathlib.Path, around: dict[str, Any]) -> dict[str, Any]:
    """Earlier results if they were made in the same surroundings, else none.

    Raises:
      UserError: the folder cannot be written, or the file is damaged.
    """
    from taichu_jax.errors import UserError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_text("utf8")) if path.is_file() else {}
        if not isinstance(found, dict):
            raise ValueError("is not a JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"--out={path.parent}: {path.name}: {error}") from error
    rows = found.get("rows", {})
    other = [key for key, value in around.items() if found.get(key) != value]
    if rows and other:
        print(f"{path}: was made with another {', '.join(other)}; its rows are dropped")
        rows = {}
    return around | {"rows": rows}


def told(row: dict[str, Any]) -> str:
    """A row in one line of the terminal."""
    if "commands" in row:
        return f"{len(row['commands'])} commands"
    found = row["ratio"]
    return f"ratio {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


if __name__ == "__main__":
    cli.main(run, __doc__)
