"""Networks bound to weights, for one objective in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.experts import AUXILIARY
from taichu_jax.models.stack import Stack
from taichu_jax.ops.random import fold_name

PyTree = Any
FULL_PRECISION = "router"  # modules whose parameters stay float32: their rounding would move tokens


class BoundNets:
    """Calls networks by name with trained, teacher's or frozen weights (`objectives.base.Nets`).

    Args:
      modules: network name -> Flax module.
      params: network name -> trained parameters.
      teacher_params: network name -> this objective's teacher parameters.
      rng: where the networks' own randomness (dropout, layer drop) is folded from; None turns it off,
        and with it all that holds in training only.
      step: the training step, for schedules inside objectives.
      compute_dtype: parameters and floating inputs are cast to it; None leaves them as they are.
      shared: results of deterministic calls, shared by the objectives of one step, so that two losses
        that ask the same network the same question pay for one forward and one backward pass.
      owner: how error messages name the objective.

    Attributes:
      auxiliary_loss: what the networks add to the objective's loss: the sum of the values that they
        sow as `loss` into the collection 'auxiliary'. Of calls with trained weights in training only: a
        teacher's weights do not learn, and through frozen ones the loss would ask the inputs to keep
        another network's experts busy. A call that another objective has made already is not counted
        again.
      auxiliary_metrics: "network/name" -> (sum, count), of whatever else the networks sow there.
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
        self.auxiliary_loss: jax.Array | float = 0.0
        self.auxiliary_metrics: dict[str, tuple[jax.Array, jax.Array]] = {}

    def __call__(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        return self._apply("trained", name, self._params, method, args, kwargs)

    def teacher(self, name: str, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        self.module(name)
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

    def module(self, name: str) -> nn.Module:
        """The network itself, for its sizes. Raises UserError."""
        if name not in self._modules:
            raise UserError(
                f"{self._owner}: there is no network {name!r}; {choices(name, self._modules)}"
            )
        return self._modules[name]

    def _apply(self, role, name, params, method, args, kwargs, train=True):
        module = self.module(name)
        stochastic = train and self._rng is not None and _draws(module)
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
        cast_params = _cast(params[name], self._dtype, FULL_PRECISION)
        cast_args, cast_kwargs = _cast((args, kwargs), self._dtype)
        collects = role == "trained" and self._rng is not None
        result, sown = module.apply(
            {"params": cast_params},
            *cast_args,
            **cast_kwargs,
            method=method,
            rngs=rngs,
            mutable=[AUXILIARY] if collects else [],
        )
        self._collect(name, sown.get(AUXILIARY, {}))
        if not stochastic:
            self._shared[key] = (result, leaves)  # holding the leaves keeps their ids from reuse
        return result

    def _collect(self, network: str, sown: PyTree) -> None:
        """Adds what a call has sown; scanned layers come stacked, repeated ones as a tuple."""
        for path, values in traverse_util.flatten_dict(sown).items():
            if path[-1] == "loss":
                self.auxiliary_loss += sum(jnp.sum(value) for value in values)
                continue
            name = f"{network}/{path[-1]}"
            total, count = self.auxiliary_metrics.get(name, (jnp.zeros(()), jnp.zeros(())))
            for value, weight in values:
                total, count = total + jnp.sum(value), count + jnp.sum(weight)
            self.auxiliary_metrics[name] = (total, count)


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
        module = self.module(name)
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


def laid_over(params: PyTree, part: PyTree, *, owner: str) -> PyTree:
    """`params` with the leaves of `part` in place of those on the same paths, in their types.

    Raises:
      UserError: `part` has a path or a shape that the parameters do not have.
    """
    result = dict(params)
    for key, value in part.items():
        if key not in params:
            raise UserError(
                f"config.objectives.{owner}: sets parameter {key!r}, which does not exist; "
                f"{choices(key, params)}"
            )
        if isinstance(value, Mapping):
            result[key] = laid_over(params[key], value, owner=owner)
        elif value.shape != params[key].shape:
            raise UserError(
                f"config.objectives.{owner}: sets parameter {key!r} of shape "
                f"{tuple(params[key].shape)} to {tuple(value.shape)}"
            )
        else:
            result[key] = value.astype(params[key].dtype)
    return result


def _identity(leaf: Any) -> Any:
    # With its type: 1, 1.0 and True are equal, but not the same question.
    return (type(leaf), leaf) if isinstance(leaf, str | bytes | int | float) else id(leaf)


def _draws(module: nn.Module) -> bool:
    """Whether a network's calls in training need randomness."""
    return getattr(module, "dropout", 0.0) > 0.0 or getattr(module, "stack", Stack()).draws


def _cast(tree: PyTree, dtype: jnp.dtype | None, but: str | None = None) -> PyTree:
    """The tree with its floating arrays as `dtype`, except below a key `but`."""
    if dtype is None:
        return tree

    def cast(path, x):
        is_float = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        kept = any(getattr(key, "key", None) == but for key in path) if but else False
        return x.astype(dtype) if is_float and not kept else x

    return jax.tree_util.tree_map_with_path(cast, tree)
