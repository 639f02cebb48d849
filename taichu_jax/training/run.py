"""A trained run, opened to be evaluated."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from taichu_jax.config import spec
from taichu_jax.training.checkpoint import load_params
from taichu_jax.training.directory import load_config, ready_tokenizer
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.sharding import MeshShape

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished or running training has so far, on one device.

    Attributes:
      path: the run's folder.
      config: it was trained with; its mesh is that of this device.
      tokenizer: with its vocabulary, or None.
      params: network -> trained parameters, of the newest checkpoint that is whole.
      step: updates that were done to them.
    """

    path: Path
    config: ConfigDict
    experiment: Experiment
    tokenizer: Any
    params: PyTree
    step: int

    @classmethod
    def open(cls, run_dir: str | Path, step: int | None = None) -> Run:
        """Reads a run's folder; the run may go on meanwhile.

        Args:
          step: which checkpoint; None for the newest good one.

        Raises:
          UserError: there is no run, or no checkpoint.
        """
        config = load_config(run_dir)
        step, params = load_params(run_dir, step)
        config.mesh, config.accumulate = spec(MeshShape), 1  # whatever it was trained on
        experiment = Experiment.from_config(config, jax.devices()[:1])
        tokenizer = ready_tokenizer(run_dir, experiment.tokenizer)
        return cls(Path(run_dir), config, experiment, tokenizer, params, step)

    def nets(self) -> BoundNets:
        """The networks with their trained weights; without dropout."""
        return BoundNets(
            self.experiment.networks,
            self.params,
            step=self.step,
            compute_dtype=self.experiment.compute_dtype,
            owner="evaluation",
        )
