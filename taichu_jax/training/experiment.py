"""A config turned into objects, checked as a whole before anything is computed."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from taichu_jax.config import KIND, build, choices, spec
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Objective
from taichu_jax.training import compiler
from taichu_jax.training.balance.base import Balance
from taichu_jax.training.balance.fixed import Fixed
from taichu_jax.training.non_finite import POLICIES, SKIP
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.restore import check_restore
from taichu_jax.training.sharding import (
    MeshShape,
    batch_sharding,
    check_batch,
    on_mesh,
    state_sharding,
)
from taichu_jax.training.state import TrainState, init_state
from taichu_jax.training.step import make_step

PRECISIONS = ("auto", "float32", "bfloat16")
AT_LEAST_ONE = (
    "steps",
    "accumulate",
    "log_every",
    "checkpoint_every",
    "checkpoints_kept",
    "non_finite_limit",
)


def defaults() -> ConfigDict:
    """Every top-level key of a config; a config file changes what it needs and adds none.

    The default of a key that comes later, or of a class's new field, stands for what was done before it
    came: saved configs that lack it get it, and their runs go on (`directory.load_config`).
    """
    config = ConfigDict()
    config.name = ""  # names the run's folder
    config.seed = 0
    config.steps = 1000
    config.data = {
        "dir": "data",  # where prepared data sets lie
        "source": "",  # an installed stamp collection; empty: fetch the package
        "workers": 1,  # processes that decode and augment; 0: threads of this one
        "threads": 1,  # of each worker, or of this process
        "damaged_share": 0.05,  # of a stream's examples; more end the run. 0: not one, 1: any
    }
    config.tokenizer = None
    config.streams = ConfigDict()
    config.networks = ConfigDict()
    config.objectives = ConfigDict()
    config.restore = ConfigDict()  # network -> run it starts from; see training/restore.py
    config.evaluations = ConfigDict()
    config.optimizer = spec(AdamW, learning_rate=1e-3)
    config.balance = spec(Fixed)  # of the objectives
    config.mesh = spec(MeshShape)
    config.precision = "auto"  # of the networks; parameters, losses and the optimiser are float32
    config.accumulate = 1  # micro-batches per step
    config.log_every = 20
    config.checkpoint_every = 500
    config.checkpoints_kept = 2
    config.non_finite = "stop"  # at a loss or gradient that is not finite; or 'skip' such steps
    config.non_finite_limit = 10  # skipped steps in a row that end the run
    return config


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The objects of one run.

    Attributes:
      config: what it was built from.
      networks, objectives, streams, evaluations: by name.
      tokenizer: the tokenizer's settings (untrained), or None.
      compute_dtype: None for float32.
    """

    config: ConfigDict
    networks: Mapping[str, nn.Module]
    objectives: Mapping[str, Objective]
    streams: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    tokenizer: Any
    balance: Balance
    optimizer: Optimizer
    mesh: Mesh
    compute_dtype: jnp.dtype | None

    @classmethod
    def from_config(cls, config: ConfigDict, devices: list | None = None) -> Experiment:
        """Builds and checks everything.

        Raises:
          UserError: an unknown key, a wrong value, an objective that names a network, stream or field
            that does not exist, a batch that the mesh does not divide.
        """
        _check_keys(config)
        if config.precision not in PRECISIONS:
            wrong = f"config.precision={config.precision!r}"
            raise UserError(f"{wrong}; {choices(config.precision, PRECISIONS)}")
        policy = config.non_finite
        if policy not in POLICIES:
            raise UserError(f"config.non_finite={policy!r}; {choices(policy, POLICIES)}")
        if not 0 <= config.data.damaged_share <= 1:
            wrong = f"config.data.damaged_share={config.data.damaged_share}"
            raise UserError(f"{wrong}: must be between 0 and 1")
        for key in AT_LEAST_ONE:
            if config[key] < 1:
                raise UserError(f"config.{key}={config[key]}: must be at least 1")
        for key in ("streams", "networks", "objectives"):
            if not config[key]:
                raise UserError(f"config.{key}: is empty, a run needs at least one")
        balance = build(config.balance, "config.balance")
        if not isinstance(balance, Balance):
            raise UserError("config.balance: is not a spec(...) of taichu_jax.training.balance")
        check_restore(config.get("restore", {}), config.networks)
        experiment = cls(
            config=config,
            networks=build(config.networks, "config.networks"),
            objectives=build(config.objectives, "config.objectives"),
            streams=build(config.streams, "config.streams"),
            evaluations=build(config.evaluations, "config.evaluations"),
            tokenizer=build(config.tokenizer, "config.tokenizer"),
            balance=balance,
            optimizer=Optimizer(build(config.optimizer, "config.optimizer"), balance.rules),
            mesh=build(config.mesh, "config.mesh").make(devices),
            compute_dtype=_compute_dtype(config.precision),
        )
        for name, stream in experiment.streams.items():
            check_batch(experiment.mesh, name, stream.batch_size, config.accumulate)
        experiment.abstract_state()
        return experiment

    def batch_shapes(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """Stream -> field -> global shape."""
        return {name: dict(stream.fields()) for name, stream in self.streams.items()}

    def _init(self) -> TrainState:
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self.batch_shapes())
        return init_state(
            self.networks, self.objectives, zeros, self.optimizer, self.config.seed, self.balance
        )

    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the state, computed without any array."""
        return self._abstract_state

    @functools.cached_property
    def _abstract_state(self) -> TrainState:
        try:
            shapes = jax.eval_shape(self._init)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"config: networks and objectives do not fit: {_line(error)}"
            ) from error
        return jax.tree.map(
            lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where),
            shapes,
            state_sharding(shapes, self.mesh),
        )

    def init(self) -> TrainState:
        """The sharded state before the first step."""
        shardings = jax.tree.map(lambda s: s.sharding, self.abstract_state())
        return jax.jit(self._init, out_shardings=shardings)()

    def train_step(self):
        """The jitted, sharded step; it takes the state's buffers over (donation)."""
        step = make_step(
            self.networks,
            self.objectives,
            self.optimizer,
            balance=self.balance,
            seed=self.config.seed,
            compute_dtype=self.compute_dtype,
            accumulate=self.config.accumulate,
            skip_non_finite=self.config.non_finite == SKIP,
        )
        state = jax.tree.map(lambda s: s.sharding, self.abstract_state())
        return jax.jit(
            on_mesh(step, self.mesh),
            in_shardings=(state, batch_sharding(self.mesh)),
            out_shardings=(state, NamedSharding(self.mesh, P())),
            donate_argnums=0,
            compiler_options=compiler.options(self.mesh.devices.flat[0].platform),
        )


def _check_keys(config: ConfigDict) -> None:
    known = defaults()
    for key in config:
        if key not in known:
            raise UserError(f"config.{key}: no such key; {choices(key, known)}")
    for section in ("streams", "networks", "objectives", "evaluations"):
        for name, value in config.get(section, {}).items():
            if not re.fullmatch(r"[\w-]+", name):  # folders are named after some of them
                raise UserError(
                    f"config.{section}.{name}: is not a name of letters, digits, - and _"
                )
            if KIND not in value:
                raise UserError(f"config.{section}.{name}: is not a spec(...)")


def _compute_dtype(precision: str) -> jnp.dtype | None:
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return None if precision == "float32" else jnp.dtype(precision)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
