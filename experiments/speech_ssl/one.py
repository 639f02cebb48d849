"""Trains one method with one seed, probes it, and writes what it cost.

    python experiments/speech_ssl/one.py --config configs/speech/apc_stamps.py:400 --seed 0 --run_dir DIR

Called by run.py, in a process of its own, so that memory is measured. A run that is finished is not
trained again. DIR/cost.json: seconds in all, FLOPs of a step by XLA's count, parameters of the encoder,
largest memory.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BATCH = 16  # recordings of every method's step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--units", default="")
    parser.add_argument("--log_mel", action="store_true", help="computes that baseline too")
    arguments = parser.parse_args()

    from taichu_jax.training import runtime

    runtime.start()
    from taichu_jax.training.loop import train
    from taichu_jax.training.run import Run

    config = settings(arguments)
    started = time.monotonic()
    run_dir = train(config, arguments.run_dir)
    run = Run.open(run_dir)
    if run.step < config.steps:  # a signal came
        sys.exit(f"stopped at step {run.step} of {config.steps}; the same command goes on")
    cost_file = run_dir / "cost.json"
    if not cost_file.is_file():
        cost = measured(config, run_dir) | {"seconds in all": time.monotonic() - started}
        cost_file.write_text(json.dumps(cost, indent=1) + "\n", "utf8")
    probe(run)


def settings(arguments: argparse.Namespace):
    """The method's config under the common budget, with the probes of the comparison."""
    from taichu_jax.config import load, spec
    from taichu_jax.evals.character_probe import CharacterProbe
    from taichu_jax.evals.probes import LanguageProbe
    from taichu_jax.evals.spoken_words import SpokenWords

    config = load(arguments.config)
    config.seed, config.data.dir = arguments.seed, arguments.data_dir
    config.data.workers = 0  # one core a run: threads of the same process
    config.data.threads = 1
    voices = config.streams.voices
    voices.batch_size = BATCH
    if arguments.units:
        voices.units = arguments.units
    config.checkpoint_every = 10 * config.steps  # at the end only
    plain = voices.copy_and_resolve_references()
    if "units" in plain:
        plain.units = ""
    common = {"stream": plain, "encoder": "speech"}
    config.evaluations = {
        "language": spec(LanguageProbe, **common, limit=400),
        "category": spec(LanguageProbe, **common, label="category", test_split="test", limit=400),
        "words": spec(SpokenWords, **common, log_mel=arguments.log_mel),
        "characters": spec(CharacterProbe, **common, log_mel=arguments.log_mel),
    }
    return config


def measured(config, run_dir: pathlib.Path) -> dict[str, float]:
    """What the training cost in memory, and what the compiled step costs."""
    import jax

    from taichu_jax.training.experiment import Experiment
    from taichu_jax.training.optim import paths

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # of training, in MiB
    experiment = Experiment.from_config(config)
    lowered = experiment.train_step().lower(experiment.abstract_state(), experiment.batch_shapes())
    flops = (lowered.compile().cost_analysis() or {}).get("flops", float("nan"))
    encoder = paths(experiment.abstract_state().params["speech"])
    return {
        "steps": config.steps,
        "GFLOP a step": flops / 1e9,
        "MiB": memory,
        "encoder parameters": int(sum(leaf.size for leaf in encoder.values())),
        "devices": jax.device_count(),
    }


def probe(run) -> None:
    """Evaluates what has no result yet."""
    from taichu_jax.evals.evaluate import FOLDER, RESULTS, evaluate

    file = run.path / FOLDER / RESULTS
    done = json.loads(file.read_text("utf8"))["evaluations"] if file.is_file() else {}
    missing = tuple(name for name in run.experiment.evaluations if name not in done)
    if missing:
        evaluate(run, missing, lambda name: print(f"probe: {name}", flush=True))


if __name__ == "__main__":
    main()
