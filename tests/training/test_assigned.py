"""Parameters that an objective sets from its memory instead of by gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Objective, Teacher
from taichu_jax.training.nets import laid_over
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.state import init_state
from taichu_jax.training.step import make_step
from tests.training.toy import Linear, SquaredError

STREAMS = {"data": {"x": np.ones((8, 4), np.float32), "y": np.ones((8, 3), np.float32)}}
NETS = {"net": Linear()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountsIntoBias(SquaredError):
    """Sets the network's bias to how often the loss was called."""

    def assigned(self, memory):
        return {"net": {"bias": jnp.full(3, memory, jnp.float32)}}


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_step_sets_them_after_the_update_and_before_the_teachers(accumulate):
    objective = CountsIntoBias(
        source="data", to_teacher=True, teacher=Teacher(nets=("net",), decay=0.5)
    )
    optimizer = Optimizer(AdamW(learning_rate=0.1))
    state = init_state(NETS, {"a": objective}, STREAMS, optimizer, 0)
    step = jax.jit(make_step(NETS, {"a": objective}, optimizer, accumulate=accumulate))
    for done in (1, 2):
        new, _ = step(state, STREAMS)
        np.testing.assert_array_equal(new.params["net"]["bias"], np.full(3, done * accumulate))
        assert np.abs(new.params["net"]["kernel"] - state.params["net"]["kernel"]).max() > 0
        old = state.teachers["a"]["net"]["bias"]
        np.testing.assert_allclose(
            new.teachers["a"]["net"]["bias"], (old + done * accumulate) / 2, rtol=1e-6
        )
        state = new


def test_other_objectives_set_none():
    assert Objective(source="data").assigned(None) == {}


def test_only_what_exists_is_set():
    params = {"net": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2, jnp.bfloat16)}}
    new = laid_over(params, {"net": {"bias": jnp.ones(2)}}, owner="a")
    assert new["net"]["bias"].dtype == jnp.bfloat16 and new["net"]["bias"].sum() == 2
    assert new["net"]["kernel"] is params["net"]["kernel"] and params["net"]["bias"].sum() == 0
    with pytest.raises(UserError, match=r"objectives.a: .*'bais'.*did you mean 'bias'"):
        laid_over(params, {"net": {"bais": jnp.ones(2)}}, owner="a")
    with pytest.raises(UserError, match=r"'bias' of shape \(2,\) to \(3,\)"):
        laid_over(params, {"net": {"bias": jnp.ones(3)}}, owner="a")
