"""Probes every layer of a frozen encoder, beside baselines.

python launch/probe.py --run runs/NAME --task all
python launch/probe.py --run runs/NAME --network image --task category,segmentation
python launch/probe.py --hf DIR --task language --out probes/NAME
python launch/probe.py --run runs/NAME --data pictures/ --task label
python launch/probe.py --hf DIR --data tfds:NAME --task all --out probes/NAME

--run DIR            a run's folder
--hf DIR             or a folder of the Hugging Face layout (or OWNER/NAME of its hub)
--network NAME       which network; by default every one that is an encoder
--step N             the run's checkpoint of this step; the newest by default
--task NAMES         speech: language, keyword, category, ctc; image: category, subcategory, segmentation,
                     retrieval; text: language, category, retrieval; or all. With --data: the columns of
                     the labels ('label' of a folder), ctc and keyword (recordings with a column text),
                     segmentation, retrieval (pictures), tagging (words with tags)
--data WHERE         own data: a folder of classes; a .csv or .jsonl with path or text, and labels (or
                     words and tags); tfds:NAME. By default the prepared data set
--data_dir DIR       where prepared data lie; by default where the run found them, or data
--dataset NAME       which prepared data set; tuxpaint_stamps by default
--out DIR            results.json and report.html; RUN/probe by default
--limit N            training examples, and test examples, at most; 1000 by default
--scratch_steps N    also trains the same network from nothing on the labels; 0, the default: does not
--seconds X          of a recording that a network of --hf hears; 4 by default
--seed N             of all draws; 0 by default

The layer is chosen on a part of the training split; the test split is asked once.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {
    "run": "",
    "hf": "",
    "network": "",
    "step": "",
    "task": "",
    "data": "",
    "data_dir": "",
    "dataset": "tuxpaint_stamps",
    "out": "",
    "limit": "1000",
    "scratch_steps": "0",
    "seconds": "4",
    "seed": "0",
}


def run(arguments: list[str]) -> None:
    """Parses the arguments, probes, prints tables and writes the report."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS)
    if bool(flags["run"]) == bool(flags["hf"]):
        raise UserError("either --run DIR or --hf DIR is needed")
    names = [name for name in flags["task"].split(",") if name]
    if not names:
        from taichu_jax.probing.study import every_task

        raise UserError(f"--task NAMES is needed: all, or {every_task()}")
    limit, scratch, seed = (
        int(cli.number(name, flags[name])) for name in ("limit", "scratch_steps", "seed")
    )
    seconds = cli.number("seconds", flags["seconds"], float)
    for name, value, least in (("limit", limit, 10), ("scratch_steps", scratch, 0)):
        if value < least:
            raise UserError(f"--{name}={value}: must be at least {least}")
    if not 0.1 <= seconds <= 60:
        raise UserError(f"--seconds={flags['seconds']}: must be between 0.1 and 60")
    if flags["step"] and not flags["step"].isdigit():
        raise UserError(f"--step={flags['step']}: must be a number")
    if flags["hf"] and not flags["out"]:
        raise UserError("--out DIR is needed with --hf")
    if flags["hf"] and flags["step"]:
        raise UserError("--step: has no meaning with --hf")

    from rich.console import Console

    from taichu_jax.probing.report import write_report
    from taichu_jax.probing.study import plan, probe
    from taichu_jax.probing.tables import tables
    from taichu_jax.training import runtime

    runtime.start_alone("launch/probe.py")
    console = Console()
    encoders, data_dir, out, source = opened(flags, seconds)
    work = plan(encoders, examples_of(flags, data_dir), names)
    with console.status("") as status:
        results = probe(
            work,
            out,
            source,
            limit=limit,
            scratch_steps=scratch,
            seed=seed,
            say=status.update if console.is_terminal else print,
        )
    for table in tables(results):
        console.print(table)
    for where, why in results["left_out"].items():
        console.print(f"{where} left out: {why}", markup=False, highlight=False)
    path = write_report(out, results)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def opened(flags: dict[str, str], seconds: float):
    """(encoders, folder of prepared data, folder of results, facts about what is probed)."""
    from taichu_jax.interop import hub
    from taichu_jax.probing.open import of_folder, of_run
    from taichu_jax.training.run import Run

    if flags["hf"]:
        folder = hub.local_folder(flags["hf"])
        found = of_folder(folder, flags["network"], seconds)
        return (
            found,
            flags["data_dir"] or "data",
            pathlib.Path(flags["out"]),
            {"folder": folder.name},
        )
    run = Run.open(flags["run"], int(flags["step"]) if flags["step"] else None)
    found = of_run(run, flags["network"])
    out = pathlib.Path(flags["out"]) if flags["out"] else run.path / "probe"
    facts = {"run": run.config.name or run.path.name, "step": run.step}
    return found, flags["data_dir"] or run.config.data.dir, out, facts


def examples_of(flags: dict[str, str], data_dir: str):
    """From a modality to the examples of it; own data have one modality only."""
    import functools

    from taichu_jax.probing.examples import Prepared
    from taichu_jax.probing.own import open_data

    if flags["data"]:
        own = open_data(flags["data"], flags["data_dir"])
        return lambda modality: own
    return functools.cache(lambda modality: Prepared(data_dir, flags["dataset"], modality))


if __name__ == "__main__":
    cli.main(run, __doc__)
