"""What every balance is: how the objectives' losses make the gradient of one step.

The step asks for gradients once per micro-batch (`differentiate`), averages them, and has them made
into one (`combine`); clipping and the optimiser come after. A method is a frozen dataclass that
replaces what it does otherwise; `Balance` itself is the plain sum.

What the objectives' own weights (numbers or schedules) say comes first: a balance sees losses that
are multiplied with them already. An objective whose loss is exactly 0, since its weight is 0 in this
step or there is nothing to count, stands aside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from taichu_jax.training.optim import Rule

PyTree = Any
Flat = dict[str, jax.Array]  # parameter's path -> array, as `Optimizer.split` returns
Metrics = Mapping[str, tuple[jax.Array, jax.Array]]
# Trained parameters -> ({objective: loss times its weight}, anything else).
Losses = Callable[[Flat], tuple[dict[str, jax.Array], Any]]


class Combined(NamedTuple):
    """What `Balance.combine` returns.

    Attributes:
      grads: of every trained parameter, for the optimiser.
      carried: the new state, of the structure that `start` returned.
      factors: objective -> what its weighted loss was multiplied with, for the log.
      metrics: name -> (sum, count).
    """

    grads: Flat
    carried: PyTree = None
    factors: Mapping[str, jax.Array] = {}
    metrics: Mapping[str, tuple[jax.Array, jax.Array]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balance:
    """The sum of the losses, and what a method may replace."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rules of the optimiser for this balance's own parameters; they come before the config's."""
        return ()

    def params(self, objectives: Iterable[str]) -> PyTree:
        """Parameters of its own, {"balance": ...}: trained, saved and sharded like a network's."""
        del objectives
        return {}

    def start(self, objectives: Iterable[str], parameters: Iterable[str]) -> PyTree:
        """What is carried from step to step at the start, None for nothing.

        Args:
          objectives: their names.
          parameters: the paths of the trained ones.

        Raises:
          UserError: the settings name what does not exist.
        """
        del objectives, parameters

    def total(self, losses: Mapping[str, jax.Array], trained: Flat) -> jax.Array | float:
        """The one number that is minimised."""
        del trained
        return sum(losses.values(), 0.0)

    def differentiate(self, losses: Losses, trained: Flat) -> tuple[PyTree, Any]:
        """(gradients, what `losses` returned else); micro-batches average the gradients."""

        def objective(trained):
            values, rest = losses(trained)
            return self.total(values, trained), rest

        (_, rest), grads = jax.value_and_grad(objective, has_aux=True)(trained)
        return grads, rest

    def combine(
        self, grads: PyTree, *, trained: Flat, losses: Flat, carried: PyTree, rng: jax.Array
    ) -> Combined:
        """The gradient of the step.

        Args:
          grads: what `differentiate` returned, averaged over the micro-batches.
          trained: the parameters before the update.
          losses: objective -> loss without its weight, averaged likewise.
          carried: see `start`.
          rng: of this step.
        """
        del trained, losses, rng
        return Combined(grads, carried)
