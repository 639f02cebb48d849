"""What every objective is: a loss over one stream that calls networks by name.

A new method is one new file with one frozen dataclass that derives from `Objective` and implements
`loss`. The step calls nothing else, so a method never needs a change outside its own file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from taichu_jax.ops.schedules import Schedule

PyTree = Any
Metric = tuple[jax.Array, jax.Array]  # (sum, count): adds up over steps, devices and processes


class Nets(Protocol):
    """Networks bound to weights, for one objective in one step.

    `step` is the training step (int32 scalar), for numbers inside an objective that are schedules.
    """

    step: jax.Array

    def __call__(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        """Calls a network with the weights that are trained."""

    def teacher(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        """Calls a network with the teacher's weights; nothing is differentiated."""

    def frozen(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        """Calls a network with today's weights, differentiating its inputs but not its weights."""

    def module(self, name: str) -> Any:
        """The network itself, for its sizes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """Weights that follow the trained ones, or stand still.

    Attributes:
      nets: the networks that have a teacher copy.
      decay: teacher <- decay * teacher + (1 - decay) * student after every step; 1.0 is frozen.
      restore: a run directory whose parameters the teacher starts from; else the student's own.
    """

    nets: tuple[str, ...]
    decay: float | Schedule = 1.0
    restore: str | None = None


class Loss(NamedTuple):
    """What an objective returns.

    Attributes:
      value: scalar float32, a mean over what is counted; 0 where there is nothing to count.
      metrics: name -> (sum, count), both scalars.
      memory: the new memory, of the structure that `Objective.memory` returned.
    """

    value: jax.Array
    metrics: Mapping[str, Metric] = {}
    memory: PyTree = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """One loss over one stream.

    Attributes:
      source: the stream it reads.
      weight: what its loss is multiplied with in the sum, a number or a schedule.
      teacher: the networks it needs teacher weights for.
    """

    source: str
    weight: float | Schedule = 1.0
    teacher: Teacher | None = None

    def memory(self, rng: jax.Array) -> PyTree:
        """State that the loss carries from step to step (queue, centre); none by default."""
        del rng
        return None

    def assigned(self, memory: PyTree) -> Mapping[str, PyTree]:
        """Parameters that follow from the new memory instead of gradients: network -> part of its tree.

        The step puts them in place after the update, before teachers follow; none by default.
        """
        del memory
        return {}

    def loss(
        self, nets: Nets, batch: Mapping[str, jax.Array], memory: PyTree, rng: jax.Array
    ) -> Loss:
        raise NotImplementedError(f"{type(self).__name__} defines no loss")


def mean_of(total: jax.Array, count: jax.Array) -> jax.Array:
    """total / count, and 0 (with zero gradient) where count is 0."""
    return jnp.where(count > 0, total, 0.0) / jnp.maximum(count, 1)


def counted(values: jax.Array, where: jax.Array | None = None) -> Metric:
    """(sum, count) of `values`, over the positions where `where` is true."""
    values = values.astype(jnp.float32)
    if where is None:
        return values.sum(), jnp.asarray(values.size, jnp.float32)
    where = jnp.broadcast_to(where, values.shape)
    return jnp.where(where, values, 0.0).sum(), where.sum().astype(jnp.float32)
