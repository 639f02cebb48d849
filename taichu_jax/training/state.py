"""Everything that a training run carries from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Objective
from taichu_jax.ops.random import fold_name
from taichu_jax.training.balance.base import Balance
from taichu_jax.training.balance.fixed import Fixed
from taichu_jax.training.nets import InitNets, merge
from taichu_jax.training.optim import Optimizer

PyTree = Any
_FIXED = Fixed()


@struct.dataclass
class TrainState:
    """A pytree that the step takes and returns.

    Attributes:
      step: int32 scalar, the number of updates done.
      params: network -> trained parameters.
      opt_state: the optimiser's state, for parameters that are trained only.
      teachers: objective -> network -> teacher parameters.
      memory: objective -> whatever the objective carries along.
      balance: what the balance of the losses carries along; None for nothing.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree
    teachers: PyTree
    memory: PyTree
    balance: PyTree = None


class Batch(dict):
    """The fields of one stream; a field that does not exist is the person's mistake, not a crash."""

    owner = "objective"
    source = "stream"

    def __missing__(self, field: str):
        raise UserError(
            f"{self.owner}: stream {self.source!r} has no field {field!r}; {choices(field, self)}"
        )

    @classmethod
    def of(cls, objective: Objective, name: str, streams: Mapping[str, Mapping]) -> Batch:
        owner = f"config.objectives.{name}"
        if objective.source not in streams:
            raise UserError(
                f"{owner}.source={objective.source!r}: no such stream; "
                f"{choices(objective.source, streams)}"
            )
        batch = cls(streams[objective.source])
        batch.owner, batch.source = owner, objective.source
        return batch


def init_params(
    modules: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    streams: Mapping[str, Mapping[str, jax.Array]],
    seed: int,
) -> tuple[PyTree, PyTree, PyTree]:
    """(params, teachers, memory) by running every loss once while its networks create parameters.

    Traceable: under `jax.eval_shape` it only checks the config, under `jax.jit` the forward passes
    are dead code and only the random initialisers are compiled.
    """
    key = jax.random.key(seed)
    params: dict[str, PyTree] = {}
    taught: dict[str, dict[str, PyTree]] = {}
    memory = {}
    for name, objective in sorted(objectives.items()):
        owner = f"config.objectives.{name}"
        names = objective.teacher.nets if objective.teacher else ()
        nets = InitNets(modules, fold_name(key, "params"), owner=owner, teacher_names=names)
        memory[name] = objective.memory(fold_name(fold_name(key, "memory"), name))
        batch = Batch.of(objective, name, streams)
        objective.loss(nets, batch, memory[name], fold_name(key, name))
        for network, tree in nets.trained.items():
            params[network] = merge(params.get(network, {}), tree)
        taught[name] = nets.taught
    teachers = {
        name: {
            network: _only(params[network], tree) if network in params else tree
            for network, tree in trees.items()
        }
        for name, trees in taught.items()
    }
    return params, teachers, memory


def init_state(
    modules, objectives, streams, optimizer: Optimizer, seed: int, balance: Balance = _FIXED
) -> TrainState:
    """The state before the first step; see `init_params`."""
    params, teachers, memory = init_params(modules, objectives, streams, seed)
    own = balance.params(sorted(objectives))
    for name in own.keys() & params.keys():
        raise UserError(f"config.networks.{name}: config.balance has parameters of this name")
    params |= own
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        teachers=teachers,
        memory=memory,
        balance=balance.start(sorted(objectives), optimizer.split(params)[0]),
    )


def _only(tree: PyTree, like: PyTree) -> PyTree:
    """The part of `tree` that has the paths of `like`, copied so that donation stays possible."""
    if not isinstance(like, Mapping):
        return jnp.array(tree, copy=True)
    return {k: _only(tree[k], like[k]) if k in tree else like[k] for k in like}
