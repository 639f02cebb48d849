import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.schedules import (
    Cosine,
    Exponential,
    Linear,
    OneTaskPerStep,
    WarmupCosine,
    value_at,
)


def linear(step):
    return 2 + (6 - 2) * min(step / 8, 1)


def cosine(step):
    return 1 + (0.5 - 1) * (1 + math.cos(math.pi * min(step / 8, 1))) / 2


def warmup_cosine(step):
    if step < 4:
        return 3 * step / 4
    done = min((step - 4) / (12 - 4), 1)
    return 0.3 + (3 - 0.3) * (1 + math.cos(math.pi * done)) / 2


def exponential(step):
    return max(2 * 0.9**step, 0.5)


@pytest.mark.parametrize(
    "schedule, formula",
    [
        (Linear(start=2.0, end=6.0, steps=8), linear),
        (Cosine(start=0.5, end=1.0, steps=8), cosine),
        (WarmupCosine(peak=3.0, warmup=4, steps=12, end=0.3), warmup_cosine),
        (Exponential(start=2.0, rate=0.9, floor=0.5), exponential),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_schedule_is_its_formula(schedule, formula):
    compiled = jax.jit(lambda step: value_at(schedule, step))
    for step in range(20):
        got = compiled(jnp.int32(step))
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, formula(step), rtol=1e-5, atol=1e-6)


def test_a_number_is_its_own_schedule():
    assert value_at(0.25, jnp.int32(9)) == 0.25 and value_at(3, jnp.int32(0)).dtype == jnp.float32


def test_warmup_longer_than_the_run():
    schedule = WarmupCosine(peak=1.0, warmup=10, steps=5)
    np.testing.assert_allclose(value_at(schedule, jnp.int32(5)), 0.5)
    assert np.isfinite(value_at(schedule, jnp.int32(50)))


def test_one_task_per_step():
    tasks = [OneTaskPerStep(task=i, tasks=3) for i in range(3)]
    steps = jnp.arange(3000)
    drawn = np.asarray(
        jax.jit(jax.vmap(lambda s: jnp.stack([value_at(t, s) for t in tasks])))(steps)
    )
    np.testing.assert_array_equal(drawn.sum(1), 1)
    assert np.abs(drawn.mean(0) - 1 / 3).max() < 4 * math.sqrt(2 / 9 / len(steps))
