"""What balances share that look at the gradient of every objective."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.training.balance.base import Balance, Combined, Flat, Losses, Metrics, PyTree


class Weighed(NamedTuple):
    """What `PerObjective.weigh` returns; vectors are in the order of the objectives' names.

    Attributes:
      shared: factor on each objective's gradient, at the parameters that are looked at.
      others: the same at all other parameters.
    """

    shared: jax.Array
    others: jax.Array
    carried: PyTree
    metrics: Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerObjective(Balance):
    """A sum of the objectives' gradients, with factors that depend on their products.

    Costs one forward pass, one backward pass per objective through what that objective reaches (so a
    network that two of them share is passed twice), and a copy of the gradients per objective. With
    micro-batches each objective's gradients are averaged first and compared once, so that the step
    is that of the whole batch.

    Attributes:
      parameters: a regular expression on the paths of the parameters at which gradients are compared;
        None for those where more than one objective has a gradient in this step.
    """

    parameters: str | None = None

    def weigh(
        self,
        objectives: Sequence[str],
        products: jax.Array,
        losses: jax.Array,
        carried: PyTree,
        rng: jax.Array,
    ) -> Weighed:
        """The factors of this step, from the [n, n] inner products of the objectives' gradients."""
        raise NotImplementedError(f"{type(self).__name__} does not weigh")

    def start(self, objectives: Iterable[str], parameters: Iterable[str]) -> PyTree:
        paths = list(parameters)
        try:
            found = self.parameters is None or any(re.search(self.parameters, p) for p in paths)
        except re.error as error:
            wrong = f"config.balance.parameters={self.parameters!r}"
            raise UserError(f"{wrong}: is not a regular expression: {error}") from error
        if not found:
            wrong = f"config.balance.parameters={self.parameters!r}"
            hint = choices(self.parameters or "", paths)
            raise UserError(f"{wrong}: matches no trained parameter; {hint}")

    def differentiate(self, losses: Losses, trained: Flat) -> tuple[dict[str, Flat], Any]:
        values, push, rest = jax.linearize(losses, trained, has_aux=True)

        def gradient(name):
            # Unlike the one transpose of `jax.vjp` with zeros for the others, this one holds nothing
            # but what `name` depends on.
            pull = jax.linear_transpose(lambda tangent: push(tangent)[name], trained)
            return pull(jnp.ones(()))[0]

        return {name: gradient(name) for name in values}, rest

    def combine(self, grads, *, trained, losses, carried, rng) -> Combined:
        names = sorted(grads)
        products = {path: _products([grads[name][path] for name in names]) for path in trained}
        shared = {path: self._looked_at(path, inner) for path, inner in products.items()}
        seen = [jnp.where(shared[path], products[path], 0.0) for path in trained]
        together = jnp.asarray(sum(seen))
        values = jnp.stack([losses[name] for name in names])
        weighed = self.weigh(names, together, values, carried, rng)

        def combined(path):
            factors = jnp.where(shared[path], weighed.shared, weighed.others)
            return sum(f * grads[name][path] for f, name in zip(factors, names, strict=True))

        return Combined(
            grads={path: combined(path).astype(p.dtype) for path, p in trained.items()},
            carried=weighed.carried,
            factors=dict(zip(names, weighed.shared, strict=True)),
            metrics=weighed.metrics,
        )

    def _looked_at(self, path: str, products: jax.Array) -> jax.Array:
        if self.parameters is not None:
            return jnp.asarray(re.search(self.parameters, path) is not None)
        return (jnp.diagonal(products) > 0).sum() > 1


def _products(grads: Sequence[jax.Array]) -> jax.Array:
    """All inner products, float32; the parameter keeps its dimensions, so its sharding stays."""
    stacked = jnp.stack([g.astype(jnp.float32) for g in grads])
    axes = tuple(range(1, stacked.ndim))
    return jnp.tensordot(stacked, stacked, axes=(axes, axes), precision=jax.lax.Precision.HIGHEST)
