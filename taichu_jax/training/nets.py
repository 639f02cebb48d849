"""Networks bound to weights, for one objective in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.ops.random import fold_name

PyTree = Any


class BoundNets:
    """Calls networks by name with trained, teacher's or frozen weights (`objectives.base.Nets`).

    Args:
      modules: network name -> Flax module.
      params: network name -> trained parameters.
      teacher_params: network name -> this objective's teacher parameters.
      rng: where the networks' own randomness (dropout, layer drop) is folded from; None turns it off.
      step: the training step, for schedules inside objectives.
      compute_dtype: parameters and floating inputs are cast to it; None leaves them as they are.
      shared: results of deterministic calls, shared by the objectives of one step, so that two losses
        that ask the same network the same question pay for one forward and one backward pass.
      owner: how error messages name the objective.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        params: Mapping[str, PyTree],
        teacher_params: Mapping[str, PyTree] | None = None,
        *,
        rng: jax.Array | None = None,
        step: jax.Array | int = 0,
        compute_dtype: jnp.dtype | None = None,
        shared: dict | None = None,
        owner: str = "objective",
    ):
        self._modules = modules
        self._params = params
        self._teacher = teacher_params or {}
        self._rng = rng
        self.step = jnp.asarray(step, jnp.int32)
        self._dtype = compute_dtype
        self._shared = {} if shared is None else shared
        self._owner = owner
        self._calls = 0

    def __call__(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        return self._apply("trained", name, self._params, method, args, kwargs)

    def teacher(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        self._module(name)
        if name not in self._teacher:
            raise UserError(
                f"{self._owner}: asks for the teacher of network {name!r}, which its `teacher` does "
                f"not list; {choices(name, self._teacher)}"
            )
        result = self._apply("teacher", name, self._teacher, method, args, kwargs, train=False)
        return jax.lax.stop_gradient(result)

    def frozen(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        params = {name: jax.lax.stop_gradient(self._params.get(name))}
        return self._apply("frozen", name, params, method, args, kwargs)

    def _module(self, name: str) -> nn.Module:
        if name not in self._modules:
            raise UserError(
                f"{self._owner}: there is no network {name!r}; {choices(name, self._modules)}"
            )
        return self._modules[name]

    def _apply(self, role, name, params, method, args, kwargs, train=True):
        module = self._module(name)
        stochastic = train and self._rng is not None and getattr(module, "dropout", 0.0) > 0.0
        leaves, structure = jax.tree.flatten((args, kwargs))
        # A teacher belongs to one objective; the other two roles mean the same for all of them.
        owner = self._owner if role == "teacher" else ""
        key = (role, owner, name, method, structure, tuple(map(_identity, leaves)))
        if not stochastic and key in self._shared:
            return self._shared[key][0]
        rngs = {}
        if stochastic:
            rngs["dropout"] = jax.random.fold_in(fold_name(self._rng, name), self._calls)
            self._calls += 1
        cast_params, (cast_args, cast_kwargs) = _cast((params[name], (args, kwargs)), self._dtype)
        result = module.apply(
            {"params": cast_params}, *cast_args, **cast_kwargs, method=method, rngs=rngs
        )
        if not stochastic:
            self._shared[key] = (result, leaves)  # holding the leaves keeps their ids from reuse
        return result


class InitNets(BoundNets):
    """Creates parameters while an objective's loss is traced.

    A network's parameters depend on its name and the seed only: every call initialises from the same
    key, and Flax derives each parameter from its path. So neither the order nor the mixture of
    objectives changes them.
    """

    def __init__(self, modules, key: jax.Array, *, owner: str, teacher_names: tuple[str, ...]):
        super().__init__(modules, {}, owner=owner)
        self._key = key
        self._teacher = dict.fromkeys(teacher_names)
        self.trained: dict[str, PyTree] = {}
        self.taught: dict[str, PyTree] = {}

    def _apply(self, role, name, params, method, args, kwargs, train=True):
        module = self._module(name)
        result, variables = module.init_with_output(
            fold_name(self._key, name), *args, method=method, **kwargs
        )
        extra = set(variables) - {"params"}
        if extra:
            raise UserError(f"network {name!r} keeps state outside 'params': {sorted(extra)}")
        into = self.taught if role == "teacher" else self.trained
        into[name] = merge(into.get(name, {}), variables.get("params", {}))
        return result


def merge(old: PyTree, new: PyTree) -> PyTree:
    """Two nested dictionaries of parameters as one; equal paths hold equal values by construction."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return old
    return {
        k: merge(old[k], new[k]) if k in old and k in new else old.get(k, new.get(k))
        for k in sorted({*old, *new})
    }


def _identity(leaf: Any) -> Any:
    # With its type: 1, 1.0 and True are equal, but not the same question.
    return (type(leaf), leaf) if isinstance(leaf, str | bytes | int | float) else id(leaf)


def _cast(tree: PyTree, dtype: jnp.dtype | None) -> PyTree:
    if dtype is None:
        return tree

    def cast(x):
        is_float = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(dtype) if is_float else x

    return jax.tree.map(cast, tree)
