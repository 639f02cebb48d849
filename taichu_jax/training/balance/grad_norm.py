"""Weights that make every objective train at a similar pace."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import mean_of
from taichu_jax.training.balance.base import PyTree
from taichu_jax.training.balance.per_objective import PerObjective, Weighed


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradNorm(PerObjective):
    """Gradient normalisation (arXiv 1711.02257, algorithm 1).

    L = sum_i w_i L_i, where w_i start at 1. After each step they follow, by Adam, the gradient of
    sum_i |G_i - mean(G) r_i^alpha| with the target held constant, and are divided so that they sum to
    the number of objectives. G_i is the norm of the gradient of w_i L_i at the shared parameters;
    r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0)) says how far objective i lags behind.

    An objective's own weight multiplies its loss before G_i is taken; L_i / L_i(0) is without it, so
    that a schedule is not mistaken for progress. L_i(0) is the first loss that is not 0. Means are
    over the objectives that have a gradient in this step; the weight of one that has none stays (but
    for the common division). With one objective its weight stays 1. Losses must be positive.

    Defaults: alpha 1.5, Adam and 0.025 are section 5.1's (NYUv2; its toy example has alpha 0.12). The
    paper takes the norms at the last shared layer to save time, which the field `parameters` can
    name; the gradients of all are needed here anyway. `least` is ours: the paper does not say what
    keeps a step of Adam from carrying a weight below 0, which would maximise that loss.

    Metrics: each objective's `weight` and `shared_gradient_norm` (G_i).

    Checked against: a step written in NumPy, with finite differences of the paper's loss.

    Attributes:
      alpha: how hard an objective that lags is helped; 0 makes all norms equal.
      learning_rate: of the weights.
      initial: objective -> L_i(0) where theory knows it (log C for C classes); others are measured.
      least: smallest weight before the division.
    """

    alpha: float = 1.5
    learning_rate: float = 0.025
    initial: Mapping[str, float] | None = None
    least: float = 1e-3

    def __post_init__(self):
        for key in ("learning_rate", "least"):
            if getattr(self, key) <= 0:
                raise UserError(f"config.balance.{key}={getattr(self, key)}: must be above 0")
        for name, value in (self.initial or {}).items():
            if value <= 0:
                raise UserError(f"config.balance.initial.{name}={value}: must be above 0")

    def start(self, objectives: Iterable[str], parameters: Iterable[str]) -> PyTree:
        super().start(objectives, parameters)
        names, known = sorted(objectives), self.initial or {}
        for name in known:
            if name not in names:
                hint = choices(name, names)
                raise UserError(f"config.balance.initial.{name}: no such objective; {hint}")
        weights = jnp.ones(len(names))
        return {
            "weights": weights,
            "initial": jnp.asarray([known.get(name, 0.0) for name in names], jnp.float32),
            "adam": optax.scale_by_adam().init(weights),
        }

    def weigh(
        self,
        objectives: Sequence[str],
        products: jax.Array,
        losses: jax.Array,
        carried: PyTree,
        rng: jax.Array,
    ) -> Weighed:
        weights, initial = carried["weights"], carried["initial"]
        initial = jnp.where(initial == 0, losses, initial)
        lengths = jnp.sqrt(jnp.diagonal(products))
        present = lengths > 0

        def mean(x):
            return mean_of(jnp.where(present, x, 0.0).sum(), present.sum())

        norms = weights * lengths
        pace = losses / jnp.where(initial == 0, 1.0, initial)
        target = mean(norms) * (pace / mean(pace)) ** self.alpha
        slope = jnp.where(present, jnp.sign(norms - target) * lengths, 0.0)
        direction, adam = optax.scale_by_adam().update(slope, carried["adam"])
        moved = jnp.maximum(weights - self.learning_rate * direction, self.least)
        moved = jnp.where(present, moved, weights)
        carried = {
            "weights": moved * len(objectives) / moved.sum(),
            "initial": initial,
            "adam": adam,
        }
        one = jnp.ones(())
        told = {
            f"{n}/shared_gradient_norm": (g, one) for n, g in zip(objectives, norms, strict=True)
        }
        return Weighed(weights, weights, carried, told)
