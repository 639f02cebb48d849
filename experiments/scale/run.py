"""Compiles every big config for the slices that it is meant for, and writes table.md and results.json.

python experiments/scale/run.py
python experiments/scale/run.py --only mae_stamps_vit_h

--only NAME   compiles the programs of one config again and keeps the others
--table true  writes the table from results.json and compiles nothing

Needs libtpu (pip install 'jax[tpu]'), no TPU. Every program is compiled by launch/compile.py in a process
of its own, one after the other; results are written after each.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from experiments.scale.table import write  # noqa: E402
from taichu_jax import cli  # noqa: E402

# Config, slice, what is changed on the command line.
PROGRAMS = (
    ("configs/vision/mae_stamps_vit_h.py", "v5e:8x8", ()),
    ("configs/speech/wav2vec2_stamps_large.py", "v5e:16x16", ()),
    ("configs/multimodal/taichu_stamps_1b.py", "v5e:8x8", ()),
    ("configs/text/causal_lm_stamps_7b.py", "v5p:4x4x8", ()),
    (
        "configs/text/causal_lm_stamps_7b.py",
        "v5p:4x4x8",
        ("--config.mesh.data=1", "--config.mesh.fsdp=128"),
    ),
    ("configs/multimodal/taichu_stamps_10b.py", "v5p:4x4x4", ()),
)


def run(arguments: list[str]) -> None:
    """Compiles, and writes the results."""
    from taichu_jax.config import choices
    from taichu_jax.errors import UserError

    flags = {"only": "", "table": "false"}
    for argument in " ".join(arguments).replace("=", " ").split("--")[1:]:
        name, _, value = argument.strip().partition(" ")
        if name not in flags:
            raise UserError(f"--{name}: no such flag; {choices(name, flags)}")
        flags[name] = value
    names = {pathlib.Path(config).stem for config, *_ in PROGRAMS}
    if flags["only"] and flags["only"] not in names:
        raise UserError(f"--only {flags['only']}: {choices(flags['only'], names)}")
    results = _load()
    for config, topology, changes in PROGRAMS:
        name = pathlib.Path(config).stem
        if cli.flag("table", flags["table"]) or flags["only"] not in ("", name):
            continue
        results[f"{name} {topology} {' '.join(changes)}".strip()] = _compile(
            config, topology, changes
        )
        (HERE / "results.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        write(results, HERE / "table.md")
    write(results, HERE / "table.md")


def _compile(config: str, topology: str, changes: tuple[str, ...]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "report.json"
        command = [sys.executable, "launch/compile.py", "--config", config, "--topology", topology]
        subprocess.run([*command, *changes, "--json", str(file)], cwd=ROOT, check=True)
        (report,) = json.loads(file.read_text("utf8"))
    return report


def _load() -> dict:
    path = HERE / "results.json"
    return json.loads(path.read_text("utf8")) if path.is_file() else {}


if __name__ == "__main__":
    cli.main(run, __doc__)
