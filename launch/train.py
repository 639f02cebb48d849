"""Trains what a config describes, or goes on with it.

python launch/train.py --config configs/vision/mae_stamps.py
python launch/train.py --config configs/vision/mae_stamps.py --config.steps=100 --run_dir runs/short

--config FILE          a file with get_config(); FILE:ARGUMENT passes an argument to it
--config.KEY=VALUE     changes one value, for example --config.optimizer.learning_rate=1e-4
--run_dir DIR          where all results go; runs/NAME by default, NAME being the config's
--resume false         refuses a folder that is not empty; by default a run goes on
--distributed true     this is one of several processes (Slurm, TPU pod, JAX_COORDINATOR_ADDRESS)

Ctrl-C or SIGTERM saves and ends the run; the same command goes on from there.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli


def run(arguments: list[str]) -> None:
    """Parses the arguments and trains."""
    from taichu_jax.config import parse_arguments

    config, flags = parse_arguments(
        arguments, {"run_dir": "", "resume": "true", "distributed": "false"}
    )
    resume, distributed = (cli.flag(name, flags[name]) for name in ("resume", "distributed"))

    from taichu_jax.training import runtime
    from taichu_jax.training.loop import train

    runtime.start(distributed)
    train(config, flags["run_dir"] or f"runs/{config.name or 'unnamed'}", resume=resume)


if __name__ == "__main__":
    cli.main(run, __doc__)
