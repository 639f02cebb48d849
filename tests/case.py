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
    """

    networks: dict[str, Any]
    objective: Any
    batch: dict[str, np.ndarray]


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


def run(name: str, batch=None, params=None, teachers=None, rng=None, dtype=None):
    """(loss value, Loss) of a case, traceable; what is not given is the case's own."""
    modules, objective, own_params, own_teachers, memory = built(name)
    batch = load(name).batch if batch is None else batch
    rng = jax.random.key(1) if rng is None else rng
    nets = BoundNets(
        modules,
        own_params if params is None else params,
        own_teachers if teachers is None else teachers,
        rng=fold_name(rng, "nets"),
        compute_dtype=dtype,
    )
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    loss = objective.loss(nets, batch, memory, rng)
    return loss.value, loss
