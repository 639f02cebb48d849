"""One small example of an objective; the contract tests run over all of them (tests/cases/*.py)."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import build
from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params


@dataclasses.dataclass(frozen=True)
class Case:
    """An objective with the smallest networks that it makes sense with, and one batch.

    Attributes:
      networks: name -> spec.
      objective: spec; its stream is called 'stream'.
      batch: the fields of that stream.
      frozen: networks that the objective uses and must not change.
    """

    networks: dict[str, Any]
    objective: Any
    batch: dict[str, np.ndarray]
    frozen: tuple[str, ...] = ()


NAMES = sorted(p.stem for p in (pathlib.Path(__file__).parent / "cases").glob("[a-z]*.py"))


@functools.cache
def load(name: str) -> Case:
    return importlib.import_module(f"tests.cases.{name}").CASE


@functools.cache
def built(name: str):
    """(modules, objective, params, teachers, memory) of a case, initialised once per test run."""
    case = load(name)
    modules, objective = build(case.networks), build(case.objective)
    batch = {k: jnp.asarray(v) for k, v in case.batch.items()}

    def init():
        return init_params(modules, {name: objective}, {"stream": batch}, 0)

    params, teachers, memory = jax.jit(init)()
    return modules, objective, params, teachers[name], memory[name]


def loss(name: str, params, teachers, batch, rng, dtype=None):
    """The `Loss` of a case, traceable."""
    modules, objective, _, _, memory = built(name)
    nets = BoundNets(
        modules, params, teachers, rng=fold_name(rng, "nets"), compute_dtype=dtype, owner=name
    )
    out = objective.loss(nets, {k: jnp.asarray(v) for k, v in batch.items()}, memory, rng)
    return out._replace(value=out.value + nets.auxiliary_loss)


@functools.cache
def gradients(name: str, dtype=None):
    """Jitted (params, teachers, batch) -> (loss, (gradients of params, gradients of teachers)).

    Compiled once per case and type, for all the tests that need it.
    """

    def value(params, teachers, batch):
        return loss(name, params, teachers, batch, jax.random.key(1), dtype).value

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
