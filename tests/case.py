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
from taichu_jax.training.state import init_params
from taichu_jax.training.step import make_loss

STEP = 5  # at which gradients are taken


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


@functools.cache
def gradients(name: str, dtype=None):
    """Jitted (params, teachers, batch) -> ((loss, metrics), (gradients of params, of teachers)).

    The loss alone, at step STEP of a run with seed 0. Compiled once per case and type, for all the
    tests that need it.
    """
    modules, objective, _, _, memory = built(name)
    loss = make_loss(modules, {name: objective}, 0, dtype)

    def value(params, teachers, batch):
        streams = {"stream": {k: jnp.asarray(v) for k, v in batch.items()}}
        total, (metrics, _) = loss(params, {name: teachers}, {name: memory}, streams, STEP)
        return total, metrics

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
