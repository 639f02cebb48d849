"""Trains what a config describes, or goes on with it.

python launch/train.py --config configs/vision/mae_stamps.py
python launch/train.py --config configs/vision/mae_stamps.py:100 --run_dir runs/short

--config FILE          a file with get_config(); FILE:ARGUMENT passes an argument to it, the number of
                       steps where a config is of one modality
--config.KEY=VALUE     changes one value, for example --config.optimizer.learning_rate=1e-4
--run_dir DIR          where all results go; runs/NAME by default, NAME being the config's
--resume false         refuses a folder that is not empty; by default a run goes on
--distributed true     this is one of several processes (Slurm, TPU pod, JAX_COORDINATOR_ADDRESS)
--exit_when_stopped N  exit code of a run that a signal stopped before its last step; 0 by default

Ctrl-C or SIGTERM saves and ends the run; the same command goes on from there. Several processes, and
scripts for TPU pods, Slurm and Kubernetes: docs/scaling.md.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli


def run(arguments: list[str]) -> None:
    """Parses the arguments and trains."""
    from taichu_jax.config import parse_arguments
    from taichu_jax.errors import UserError

    config, flags = parse_arguments(
        arguments,
        {"run_dir": "", "resume": "true", "distributed": "false", "exit_when_stopped": "0"},
    )
    resume, distributed = (cli.flag(name, flags[name]) for name in ("resume", "distributed"))
    code = flags["exit_when_stopped"]
    if not code.isdigit() or int(code) > 125:
        raise UserError(f"--exit_when_stopped={code}: must be a number from 0 to 125")

    from taichu_jax.training import runtime
    from taichu_jax.training.checkpoint import FOLDER, steps
    from taichu_jax.training.loop import train

    runtime.start(distributed)
    path = train(config, flags["run_dir"] or f"runs/{config.name or 'unnamed'}", resume=resume)
    if steps(path / FOLDER)[0] < config.steps:
        sys.exit(int(code))


if __name__ == "__main__":
    cli.main(run, __doc__)
