"""Teachers that start from another run's weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Objective
from taichu_jax.training.checkpoint import load_params
from taichu_jax.training.optim import paths
from taichu_jax.training.state import TrainState

PyTree = Any


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
            network: _taken(params, network, tree, f"{key}={run}")
            for network, tree in teachers[name].items()
        }
    return dataclasses.replace(state, teachers=teachers)


def _taken(params: PyTree, network: str, like: PyTree, where: str) -> PyTree:
    """The parameters of `like` from another run, on the devices where `like` is."""
    if network not in params:
        raise UserError(f"{where}: has no network {network!r}; {choices(network, params)}")
    found = paths(params[network])
    for path, wanted in paths(like).items():
        if path not in found:
            raise UserError(f"{where}: its network {network!r} has no parameter {path}")
        if found[path].shape != wanted.shape:
            shapes = f"{tuple(found[path].shape)}, not {tuple(wanted.shape)}"
            raise UserError(f"{where}: its parameter {network}/{path} is {shapes}")

    def take(wanted: PyTree, tree: PyTree) -> PyTree:
        if isinstance(wanted, Mapping):
            return {k: take(wanted[k], tree[k]) for k in wanted}
        return jax.device_put(tree.astype(wanted.dtype), wanted.sharding)

    return take(like, params[network])
