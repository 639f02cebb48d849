import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Teacher
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.state import Batch, init_params, init_state
from tests.training.toy import Linear, SquaredError

STREAMS = {"data": {"x": jnp.ones((8, 4)), "y": jnp.zeros((8, 3))}}
FIT = SquaredError(source="data")


def test_fields_and_streams_that_do_not_exist():
    batch = Batch.of(FIT, "fit", STREAMS)
    assert batch["x"].shape == (8, 4)
    with pytest.raises(UserError) as caught:
        batch["z"]
    assert str(caught.value).startswith(
        "config.objectives.fit: stream 'data' has no field 'z'; valid: x, y"
    )
    with pytest.raises(UserError, match=r"fit.source='dat': no such stream; did you mean 'data'"):
        Batch.of(SquaredError(source="dat"), "fit", STREAMS)


def test_initial_state():
    teaching = SquaredError(source="data", to_teacher=True, teacher=Teacher(nets=("net",)))
    objectives, optimizer = {"a": FIT, "b": teaching}, Optimizer(AdamW(learning_rate=0.1))
    state = init_state({"net": Linear()}, objectives, STREAMS, optimizer, 0)
    assert state.step == 0 and state.step.dtype == jnp.int32
    assert state.memory == {"a": 0, "b": 0} and state.teachers["a"] == {}
    # A teacher starts as a copy of the student, in its own memory, so that both can be donated.
    jax.tree.map(np.testing.assert_array_equal, state.teachers["b"]["net"], state.params["net"])
    kernels = state.teachers["b"]["net"]["kernel"], state.params["net"]["kernel"]
    assert kernels[0].unsafe_buffer_pointer() != kernels[1].unsafe_buffer_pointer()
    assert set(state.opt_state.mu) == {"net/bias", "net/kernel"}


def test_parameters_do_not_depend_on_the_mixture():
    modules = {"net": Linear(), "more": Linear(features=3)}
    mixed = {"z": FIT, "a": SquaredError(source="data", net="more")}
    both, alone = (init_params(modules, o, STREAMS, 3)[0] for o in (mixed, {"z": FIT}))
    assert set(alone) == {"net"} and set(both) == {"net", "more"}
    jax.tree.map(np.testing.assert_array_equal, both["net"], alone["net"])


def test_shapes_alone_check_a_config():
    shapes = jax.eval_shape(lambda: init_params({"net": Linear()}, {"a": FIT}, STREAMS, 0))
    assert shapes[0]["net"]["kernel"].shape == (4, 3)
    with pytest.raises(UserError, match="there is no network 'net'"):
        jax.eval_shape(lambda: init_params({}, {"a": FIT}, STREAMS, 0))
