"""Evaluates a run from its checkpoint, and writes a report to look at.

python launch/evaluate.py --run runs/NAME
python launch/evaluate.py --run runs/NAME --only retrieval,captions
python launch/evaluate.py --run runs/NAME --only none        the report again, nothing computed

--run DIR            the run's folder; its config says what is evaluated (config.evaluations)
--only NAMES         these evaluations only; results of the others stay, if of the same step
--step N             the checkpoint of this step; the newest by default
--report false       writes no report.html
--data_dir DIR       where prepared data lie, if not where the run found them

Results: DIR/evaluation/results.json, and DIR/report.html, one file to open in a browser.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {"run": "", "only": "", "step": "", "report": "true", "data_dir": ""}


def run(arguments: list[str]) -> None:
    """Parses the arguments, evaluates, prints tables and writes the report."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS)
    if not flags["run"]:
        raise UserError("--run DIR is needed: the folder of a run, for example runs/taichu_stamps")
    report = cli.flag("report", flags["report"])
    if flags["step"] and not flags["step"].isdigit():
        raise UserError(f"--step={flags['step']}: must be a number")

    from taichu_jax.evals.report import write_report

    if flags["only"] != "none":
        evaluate(flags)
    if report:
        path = write_report(flags["run"])
        print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def evaluate(flags: dict[str, str]) -> None:
    """Runs the evaluations and shows how far they are."""
    from taichu_jax.evals.evaluate import evaluate
    from taichu_jax.evals.progress import Progress
    from taichu_jax.evals.tables import show
    from taichu_jax.training import runtime
    from taichu_jax.training.run import Run

    runtime.start_alone("launch/evaluate.py")
    opened = Run.open(flags["run"], int(flags["step"]) if flags["step"] else None)
    if flags["data_dir"]:
        opened.config.data.dir = flags["data_dir"]
    only = tuple(name for name in flags["only"].split(",") if name)
    names = only or tuple(opened.experiment.evaluations)
    with Progress(opened.path, names) as progress:
        results = evaluate(opened, only, progress.say)
    for name in names:
        show(name, results["evaluations"][name])


if __name__ == "__main__":
    cli.main(run, __doc__)
