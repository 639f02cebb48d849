"""Teachers that start from another run's weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Objective
from taichu_jax.training.checkpoint import load_params
from taichu_jax.training.restore import taken
from taichu_jax.training.state import TrainState


def restore_teachers(objectives: Mapping[str, Objective], state: TrainState) -> TrainState:
    """The state with every teacher that names a run (`Teacher.restore`) taken from that run.

    Raises:
      UserError: the run has no checkpoint, or its networks are others.
    """
    teachers = dict(state.teachers)
    for name, objective in objectives.items():
        if objective.teacher is None or objective.teacher.restore is None:
            continue
        run, key = objective.teacher.restore, f"config.objectives.{name}.teacher.restore"
        try:
            _, params = load_params(run)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
        teachers[name] = {
            network: taken(params, network, tree, f"{key}={run}")
            for network, tree in teachers[name].items()
        }
    return dataclasses.replace(state, teachers=teachers)
