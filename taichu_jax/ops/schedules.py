"""Numbers that change with the step: learning rates, loss weights, decays, temperatures.

A schedule is a frozen dataclass that maps a step (int array) to a float array, so a config can name
it wherever a plain number is allowed. `value_at` reads either.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """From `start` to `end` in a straight line over `steps` steps, then constant."""

    start: float
    end: float
    steps: int

    def __call__(self, step: jax.Array) -> jax.Array:
        return optax.linear_schedule(self.start, self.end, self.steps)(step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """From `start` to `end` along half a cosine over `steps` steps, then constant."""

    start: float
    end: float
    steps: int

    def __call__(self, step: jax.Array) -> jax.Array:
        progress = jnp.clip(step / self.steps, 0.0, 1.0)
        return self.end + 0.5 * (self.start - self.end) * (1 + jnp.cos(jnp.pi * progress))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up from 0 to `peak`, then half a cosine down to `end` at step `steps`."""

    peak: float
    warmup: int
    steps: int
    end: float = 0.0

    def __call__(self, step: jax.Array) -> jax.Array:
        return optax.warmup_cosine_decay_schedule(
            0.0, self.peak, self.warmup, max(self.steps, self.warmup + 1), self.end
        )(step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential:
    """start * rate**step, not below `floor` (wav2vec 2.0's Gumbel temperature)."""

    start: float
    rate: float
    floor: float

    def __call__(self, step: jax.Array) -> jax.Array:
        return jnp.maximum(
            self.start * jnp.power(self.rate, jnp.asarray(step, jnp.float32)), self.floor
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneTaskPerStep:
    """1 in the steps that draw task `task` out of `tasks`, else 0 (the sampling of released OPT).

    Objectives that share `seed` and `tasks` and number themselves 0, 1, ... take turns at random.
    """

    task: int
    tasks: int
    seed: int = 0

    def __call__(self, step: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        return (jax.random.randint(key, (), 0, self.tasks) == self.task).astype(jnp.float32)


Schedule = Linear | Cosine | WarmupCosine | Exponential | OneTaskPerStep


def value_at(value: float | Schedule, step: jax.Array) -> jax.Array:
    """The value at `step` of a schedule or of a plain number, float32."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)
