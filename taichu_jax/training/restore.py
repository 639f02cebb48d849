"""Networks that start from another run's weights (`config.restore`).

    config.restore = {"speech": "runs/data2vec_stamps"}    network -> run directory; empty: from nothing
    config.restore = {"audio_tokeniser": "runs/mel_codec_stamps:speech"}    where its name is another

Only a new run is filled from there; one that goes on has its own checkpoint. The optimiser starts anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Objective
from taichu_jax.training.checkpoint import load_params
from taichu_jax.training.optim import paths
from taichu_jax.training.state import TrainState

PyTree = Any


def check_restore(restore: Mapping[str, str], networks: Mapping[str, Any]) -> None:
    """Raises UserError where a network is named that the config does not have."""
    for network in restore:
        if network not in networks:
            raise UserError(
                f"config.restore.{network}: no such network; {choices(network, networks)}"
            )


def restore_networks(
    restore: Mapping[str, str], objectives: Mapping[str, Objective], state: TrainState
) -> tuple[TrainState, list[str]]:
    """(the state with these networks, and teachers that copy them, taken from runs; what to tell).

    Raises:
      UserError: a run has no checkpoint, or its network is another.
    """
    params, teachers, notes = dict(state.params), dict(state.teachers), []
    for network, source in restore.items():
        if not source:
            continue
        run, name = run_and_name(source, network)
        where = f"config.restore.{network}"
        if network not in params:
            raise UserError(
                f"{where}: no objective trains this network; {choices(network, params)}"
            )
        try:
            step, found = load_params(run)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        params[network] = taken(found, name, params[network], f"{where}={run}")
        unused = len(paths(found[name])) - len(paths(params[network]))
        rest = f"; {unused} of its parameters have no place here" if unused else ""
        notes.append(f"network {network!r} starts from {run}, step {step}{rest}")
        for owner, trees in teachers.items():
            teacher = objectives[owner].teacher
            if network in trees and teacher is not None and teacher.restore is None:
                copied = taken(found, name, trees[network], f"{where}={run}")
                teachers[owner] = trees | {network: copied}
    return dataclasses.replace(state, params=params, teachers=teachers), notes


def run_and_name(source: str, network: str) -> tuple[str, str]:
    """A run directory, and what the network is called there: "RUN" or "RUN:NAME"."""
    run, colon, name = source.rpartition(":")
    named = colon and run and name and "/" not in name
    return (run, name) if named else (source, network)


def taken(params: PyTree, network: str, like: PyTree, where: str) -> PyTree:
    """The parameters of `like` from another run, on the devices where `like` is.

    Always a copy, so that two that are taken from the same place can both be donated.

    Raises:
      UserError: the run has no such network, or it lacks a parameter or has it in another shape.
    """
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
        values = np.asarray(tree)  # whole, in every process, which places the parts of its devices
        return jax.make_array_from_callback(
            wanted.shape, wanted.sharding, lambda part: np.array(values[part], wanted.dtype)
        )

    return take(like, params[network])
