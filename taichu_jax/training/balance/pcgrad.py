"""Gradients that do not undo each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from taichu_jax.ops.random import fold_name
from taichu_jax.training.balance.base import PyTree
from taichu_jax.training.balance.per_objective import PerObjective, Weighed


@dataclasses.dataclass(frozen=True, kw_only=True)
class PCGrad(PerObjective):
    """Projection of conflicting gradients (arXiv 2001.06782, algorithm 1).

    Each objective's gradient g_i goes through the others in a random order; where its inner product
    with g_j is negative at that moment, it loses its part along g_j. The results are summed. The
    order is drawn anew for every objective in every step.

    The projected gradients are sums of the g_i, so the algorithm runs on their inner products, and
    the gradients themselves are read once however many objectives there are.

    Gradients are compared at the parameters that objectives share; where one alone has a gradient
    there is nothing to be in conflict with, and its gradient stays. `parameters=".*"` counts all
    parameters in the norms, as the authors' code does, which makes the projections smaller. That code
    also loses its shuffle (the result is not used), so that its order is that of the list.

    Metrics: `conflict_rate`, the share of pairs with a negative inner product; each objective's `weight`,
    the sum of its gradient's factors, which is 1 without conflicts.

    Checked against: the algorithm as a loop in NumPy, and two vectors in closed form.
    """

    def weigh(
        self,
        objectives: Sequence[str],
        products: jax.Array,
        losses: jax.Array,
        carried: PyTree,
        rng: jax.Array,
    ) -> Weighed:
        n = len(objectives)
        order = jnp.argsort(jax.random.uniform(fold_name(rng, "pcgrad"), (n, n)), axis=1)
        factors = project(products, order).sum(0)
        conflicts = jnp.triu(products < 0, k=1).sum().astype(jnp.float32)
        told = {"conflict_rate": (conflicts, jnp.float32(n * (n - 1) / 2))}
        return Weighed(factors, jnp.ones(n), carried, told)


def project(products: jax.Array, order: jax.Array) -> jax.Array:
    """[n, n] factors: row i says what sum of all gradients the i-th one is projected to.

    Args:
      products: [n, n] inner products.
      order: [n, n] row i is the order in which gradient i meets all n; itself it passes by.
    """
    n = len(order)
    rows = jnp.arange(n)
    factors = jnp.eye(n)
    for other in order.T:
        inner = (factors * products[:, other].T).sum(1)
        square = products[other, other]
        conflict = (inner < 0) & (other != rows) & (square > 0)
        part = jnp.where(conflict, inner, 0.0) / jnp.where(conflict, square, 1.0)
        factors = factors.at[rows, other].add(-part)
    return factors
