"""Weights that are learnt as the noise of each objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.training.balance.base import Balance, Combined, Flat, PyTree
from taichu_jax.training.optim import Rule

NETWORK, KIND = "balance", "log_variance"  # where among the parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty(Balance):
    """Homoscedastic uncertainty as weight (arXiv 1705.07115).

    L = sum_i exp(-s_i) L_i + s_i, with s_i = log sigma_i^2 a trained parameter that starts at 0 and
    is not decayed. At the optimum s_i = log L_i, so every objective's weighted loss tends to 1.

    The paper has L_i / (2 sigma_i^2) + log sigma_i for a squared error (equation 7), which is half of
    the form above, and L_i / sigma_i^2 + log sigma_i for a cross-entropy (equation 10, after an
    approximation). One form is used for every loss, as a step cannot know which likelihood a loss
    stands for (contrastive ones stand for none), and it is the one that begins exactly as `Fixed`.
    Halving the whole sum would change nothing under Adam but what clipping sees.

    Losses must be positive: a loss that may fall below 0 sends its weight to infinity. Gradients of
    s_i count in the norm that is clipped. With micro-batches they are averaged like all others.

    Defaults: `rate` 1 trains s_i as fast as the networks. GradNorm's authors trained them with 0.025
    beside networks at 2e-5 (arXiv 1711.02257, section 5.1), a rate of 1000: with small learning rates
    and short runs, 1 leaves the weights near their start.

    Metrics: each objective's `weight`.

    Checked against: the optimum in closed form and the gradient by hand.

    Attributes:
      rate: factor on the optimiser's learning rate for s_i.
    """

    rate: float = 1.0

    def __post_init__(self):
        if self.rate <= 0:
            raise UserError(f"config.balance.rate={self.rate}: must be above 0")

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (Rule(pattern=f"^{NETWORK}/{KIND}/", rate=self.rate, decay=0.0),)

    def params(self, objectives: Iterable[str]) -> PyTree:
        return {NETWORK: {KIND: {name: jnp.zeros(()) for name in objectives}}}

    def total(self, losses: Mapping[str, jax.Array], trained: Flat) -> jax.Array:
        total = jnp.zeros(())
        for name, loss in losses.items():
            s = trained[_path(name)]
            total += jnp.exp(-s) * loss + jnp.where(loss == 0, 0.0, s)
        return total

    def combine(self, grads, *, trained, losses, carried, rng) -> Combined:
        factors = {name: jnp.exp(-trained[_path(name)]) for name in losses}
        return Combined(grads, carried, factors)


def _path(objective: str) -> str:
    return f"{NETWORK}/{KIND}/{objective}"
