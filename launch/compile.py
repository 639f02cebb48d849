"""Compiles a config's train step for TPU slices that are not there, and says what it would take.

python launch/compile.py --config configs/text/causal_lm_stamps_7b.py --topology v5p:8x8x8
python launch/compile.py --config FILE --topology v5e:16x16 --topology v5p:4x4x4 --json scale.json

--config FILE          a file with get_config(); FILE:ARGUMENT passes an argument to it
--config.KEY=VALUE     changes one value, for example --config.mesh.fsdp=64 --config.accumulate=4
--topology NAME        a slice: v5e:16x16, v5p:8x8x8, v4:4x4x4, v6e:16x16, v3:4x4, v2:2x2, tpu7x:2x2x1;
                       several are compiled one after the other, also as one list with commas
--json FILE            writes everything as JSON too
--text DIR             keeps the compiled programs' text there, NAME_TOPOLOGY.hlo

It needs libtpu (pip install 'jax[tpu]'), no TPU and no data. precision 'auto' means bfloat16 here.
Memory is the compiler's own account: arguments, outputs that take no argument's place, temporaries and
code together must be below the chip's. Operations, bytes and collectives are counted in the compiled
program, loops by their trip counts; times are bounds from the chips' published peaks
(taichu_jax/compiled/), nothing is measured. A program that does not fit is a result, not an error.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli


def run(arguments: list[str]) -> None:
    """Parses the arguments, compiles, prints and writes."""
    from taichu_jax.config import parse_arguments
    from taichu_jax.errors import UserError

    names, rest = topologies(arguments)
    config, flags = parse_arguments(rest, {"json": "", "text": ""})
    if not names:
        raise UserError("--topology NAME is needed, for example --topology v5e:16x16")
    where = pathlib.Path(flags["json"]).resolve()
    if flags["json"] and not where.parent.is_dir():
        raise UserError(f"--json {flags['json']}: there is no folder {where.parent}")
    if flags["text"] and not pathlib.Path(flags["text"]).is_dir():
        raise UserError(f"--text {flags['text']}: there is no such folder")
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever accelerator is here, it is not used

    import json

    import jax

    from taichu_jax.compiled.program import for_topology
    from taichu_jax.compiled.tables import show
    from taichu_jax.training import runtime

    runtime.start()
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is what is timed here
    reports = []
    for name in names:
        report, text = for_topology(config.copy_and_resolve_references(), name)
        reports.append(report)
        if flags["text"] and text:
            file = f"{config.name}_{name.replace(':', '_')}.hlo"
            (pathlib.Path(flags["text"]) / file).write_text(text, "utf8")
        show(reports[-1])
        if flags["json"]:
            text = json.dumps([r.to_json() for r in reports], indent=2, sort_keys=True)
            where.write_text(text + "\n", "utf8")


def topologies(arguments: list[str]) -> tuple[list[str], list[str]]:
    """(names given by --topology, the other arguments)."""
    from taichu_jax.errors import UserError

    names, rest, left = [], [], list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--topology" and not left:
            raise UserError("--topology: needs a value")
        if argument == "--topology":
            argument = f"--topology={left.pop(0)}"
        if argument.startswith("--topology="):
            names += [name for name in argument.partition("=")[2].split(",") if name]
        else:
            rest.append(argument)
    return names, rest


if __name__ == "__main__":
    cli.main(run, __doc__)
