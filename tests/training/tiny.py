"""The smallest run that uses all of the state: random rows, one small network, memory, a teacher."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.config import spec
from taichu_jax.models.layers import Dropout
from taichu_jax.objectives.base import Loss, Objective, Teacher
from taichu_jax.training.experiment import defaults
from taichu_jax.training.loop import train
from taichu_jax.training.optim import AdamW

WIDTH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Numbers that are a function of (seed, step).

    Attributes:
      delay: seconds that a batch takes.
    """

    batch_size: int = 8
    delay: float = 0.0

    def fields(self):
        return {
            "x": jax.ShapeDtypeStruct((self.batch_size, WIDTH), np.float32),
            "example": jax.ShapeDtypeStruct((self.batch_size,), np.int32),
        }

    def batches(self, data_dir, tokenizer, *, seed, rows=None):
        del data_dir, tokenizer
        mine = slice(None) if rows is None else list(rows)
        return grain.MapDataset.source(_Batches(self, seed, mine))


@dataclasses.dataclass(frozen=True)
class _Batches:
    stream: Rows
    seed: int
    mine: slice | list

    def __len__(self):
        return 2**31 - 1

    def __getitem__(self, step):
        time.sleep(self.stream.delay)
        rng = np.random.default_rng([self.seed, step])
        rows = rng.normal(size=(self.stream.batch_size, WIDTH)).astype(np.float32)
        numbers = step * self.stream.batch_size + np.arange(len(rows), dtype=np.int32)
        return {"x": rows[self.mine], "example": numbers[self.mine]}


class Mixer(nn.Module):
    """One product with dropout."""

    width: int = WIDTH
    dropout: float = 0.1

    @nn.compact
    def __call__(self, x):
        x = Dropout(self.dropout)(x)
        kernel = self.param("kernel", nn.initializers.normal(0.3), (x.shape[-1], self.width))
        return jnp.tanh(x @ kernel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance(Objective):
    """Something that depends on the weights, the rows, a draw, the memory and the teacher.

    Attributes:
      breaks_at: the step from which on it is not a number,
      breaks_for: and for how many steps.
    """

    net: str = "mixer"
    breaks_at: int = 100_000
    breaks_for: int = 100_000

    def memory(self, rng):
        return {"mean": jax.random.normal(rng, (WIDTH,))}

    def loss(self, nets, batch, memory, rng):
        x = batch["x"]
        y = nets(self.net, x)
        wish = x + jax.random.normal(rng, x.shape)
        if self.teacher is not None:
            wish += nets.teacher(self.net, x)
        value = jnp.square(y - wish - memory["mean"]).mean()
        broken = (nets.step >= self.breaks_at) & (nets.step < self.breaks_at + self.breaks_for)
        value *= jnp.where(broken, jnp.nan, 1.0)
        memory = {"mean": 0.9 * memory["mean"] + 0.1 * y.mean(0)}
        return Loss(value, {"size": (jnp.abs(y).sum(), jnp.float32(y.size))}, memory)


def get_config():
    config = defaults()
    config.name = "tiny"
    config.steps = 12
    config.data.workers = 0  # nothing here is worth a process of its own
    config.streams.rows = spec(Rows)
    config.networks.mixer = spec(Mixer)
    config.objectives.distance = spec(
        Distance, source="rows", teacher=Teacher(nets=("mixer",), decay=0.9)
    )
    config.optimizer = spec(AdamW, learning_rate=1e-2)
    config.log_every = 2
    config.checkpoint_every = 3
    return config


def on_one_device(**changes):
    """The config on one device, with changes at the top level."""
    config = get_config()
    config.mesh.data = 1
    for key, value in changes.items():
        config[key] = value
    return config


@functools.cache
def finished_run() -> pathlib.Path:
    """A run of the config on one device that was never interrupted; tests copy it."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return train(on_one_device(), pathlib.Path(folder) / "run")


def losses(run_dir) -> list[dict]:
    """The lines of losses.jsonl; they fail to parse unless each is whole."""
    return [json.loads(line) for line in (pathlib.Path(run_dir) / "losses.jsonl").open()]


def weights(params) -> np.ndarray:
    """The network's one matrix."""
    return np.asarray(params["mixer"]["kernel"])
