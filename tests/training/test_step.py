"""One update, against what it should be by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.objectives.base import Teacher
from taichu_jax.ops.schedules import Linear as LinearSchedule
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.optim import DEFAULT_RULES, AdamW, Optimizer, Rule, paths
from taichu_jax.training.state import init_state
from taichu_jax.training.step import follow, make_loss, make_step
from tests.training.toy import CALLS, Linear, SquaredError

RNG = np.random.default_rng(0)
STREAMS = {
    "data": {
        "x": RNG.normal(size=(8, 4)).astype(np.float32),
        "y": RNG.normal(size=(8, 3)).astype(np.float32),
    }
}
NETS = {"net": Linear()}
FIT = SquaredError(source="data")
ADAM = AdamW(learning_rate=0.1, clip=None)


def start(objectives, settings=ADAM, nets=NETS):
    optimizer = Optimizer(settings)
    return optimizer, init_state(nets, objectives, STREAMS, optimizer, 0)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    """Of a mean loss over equal parts; sums and counts of metrics add up; memories are threaded."""
    optimizer, state = start({"fit": FIT})
    whole, whole_metrics = jax.jit(make_step(NETS, {"fit": FIT}, optimizer))(state, STREAMS)
    step = jax.jit(make_step(NETS, {"fit": FIT}, optimizer, accumulate=4))
    parts, parts_metrics = step(state, STREAMS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (whole.params, whole.opt_state),
        (parts.params, parts.opt_state),
    )
    assert whole.memory["fit"] == 1 and parts.memory["fit"] == 4
    for key in ("fit/loss", "fit/error", "loss"):
        (a, m), (b, n) = whole_metrics[key], parts_metrics[key]
        np.testing.assert_allclose(a / m, b / n, rtol=1e-5)
    assert parts_metrics["fit/error"][1] == 8
    np.testing.assert_allclose(
        parts_metrics["gradient_norm"][0], whole_metrics["gradient_norm"][0], rtol=1e-5
    )


def test_micro_batches_draw_their_own_randomness():
    nets = {"net": Linear(dropout=0.5)}
    streams = jax.tree.map(lambda x: np.repeat(x[:1], 8, 0), STREAMS)
    loss = make_loss(nets, {"fit": FIT}, 0)
    _, state = start({"fit": FIT}, nets=nets)

    @jax.jit
    def run(step, part):
        return loss(state.params, state.teachers, state.memory, streams, step, part)[0]

    values = [float(run(s, p)) for s, p in [(0, 0), (0, 1), (1, 0), (0, 0)]]
    assert values[0] == values[3] and len(set(values)) == 3


def test_teacher_follows_the_student_after_the_update():
    objective = SquaredError(
        source="data", to_teacher=True, teacher=Teacher(nets=("net",), decay=0.9)
    )
    optimizer, state = start({"a": objective})
    step = jax.jit(make_step(NETS, {"a": objective}, optimizer))
    for _ in range(3):
        new, _ = step(state, STREAMS)
        old, got = state.teachers["a"]["net"], new.teachers["a"]["net"]
        for key in ("kernel", "bias"):
            want = 0.9 * old[key] + 0.1 * new.params["net"][key]
            np.testing.assert_allclose(got[key], want, rtol=1e-5, atol=1e-7)
        state = new
    assert np.abs(state.teachers["a"]["net"]["kernel"] - state.params["net"]["kernel"]).max() > 0


def test_teacher_decay_may_be_a_schedule_and_one_copies_nothing():
    params, teachers = {"net": {"w": jnp.ones(2)}}, {"a": {"net": {"w": jnp.zeros(2)}}}
    decay = LinearSchedule(start=0.5, end=1.0, steps=4)
    moving = {"a": SquaredError(source="s", teacher=Teacher(nets=("net",), decay=decay))}
    for step, want in [(0, 0.5), (2, 0.25), (4, 0.0), (9, 0.0)]:
        got = follow(moving, teachers, params, jnp.int32(step))["a"]["net"]["w"]
        np.testing.assert_allclose(got, want)
    still = {"a": SquaredError(source="s", teacher=Teacher(nets=("net",)))}
    assert (
        follow(still, teachers, params, jnp.int32(0))["a"]["net"]["w"] is teachers["a"]["net"]["w"]
    )


def test_a_rate_of_zero_keeps_bits_and_has_no_optimiser_state():
    rules = (Rule(pattern=r"kernel$", rate=0.0), *DEFAULT_RULES)
    optimizer, state = start({"fit": FIT}, AdamW(learning_rate=0.1, weight_decay=0.5, rules=rules))
    assert set(state.opt_state.mu) == set(state.opt_state.nu) == {"net/bias"}
    new = state
    step = jax.jit(make_step(NETS, {"fit": FIT}, optimizer))
    for _ in range(3):
        new, _ = step(new, STREAMS)
    np.testing.assert_array_equal(new.params["net"]["kernel"], state.params["net"]["kernel"])
    assert np.abs(new.params["net"]["bias"] - state.params["net"]["bias"]).max() > 0.1
    # The norm is that of the trained parameters alone.
    grads = jax.grad(
        lambda p: make_loss(NETS, {"fit": FIT}, 0)(p, {}, state.memory, STREAMS, 0)[0]
    )(state.params)
    _, first = step(state, STREAMS)
    np.testing.assert_allclose(
        first["gradient_norm"][0], np.linalg.norm(grads["net"]["bias"]), rtol=1e-5
    )


def test_objectives_that_ask_the_same_share_one_call():
    """The memo changes neither the loss nor the gradients, and it saves the second call."""
    one = {"a": FIT}
    two = {"a": FIT, "b": SquaredError(source="data", weight=2.0)}
    _, state = start(two)

    def graded(objectives, memory):
        def loss(p):
            return make_loss(NETS, objectives, 0)(p, {}, memory, STREAMS, 0)[0]

        CALLS.clear()
        result = jax.value_and_grad(loss)(state.params)
        return result, len(CALLS)

    (shared, shared_grads), calls = graded(two, state.memory)
    (alone, alone_grads), _ = graded(one, {"a": state.memory["a"]})
    assert calls == 1
    np.testing.assert_allclose(shared, 3 * alone, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 3 * b, rtol=1e-5), shared_grads, alone_grads
    )


def test_what_may_not_be_shared_is_not():
    """Other inputs, other roles, other teachers and dropout."""
    net, params = Linear(), {"net": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}
    x, shared = jnp.ones((2, 4)), {}
    teachers = {"net": jax.tree.map(lambda p: 2 * p, params["net"])}

    def bound(teachers=teachers, owner="a", **fields):
        return BoundNets({"net": net}, params, teachers, shared=shared, owner=owner, **fields)

    assert bound()("net", x) is bound()("net", x)
    assert bound()("net", x + 0) is not bound()("net", x)
    assert bound().frozen("net", x) is not bound()("net", x)
    first = bound().teacher("net", x)
    other = bound(teachers={"net": params["net"]}, owner="b").teacher("net", x)
    np.testing.assert_allclose(first, 2 * other)
    noisy = BoundNets(
        {"net": Linear(dropout=0.5)}, params, shared=shared, rng=jax.random.key(0), owner="c"
    )
    assert np.abs(noisy("net", x) - noisy("net", x)).max() > 0


@pytest.mark.parametrize("step, want", [(0, 1.0), (2, 2.0), (4, 3.0), (7, 3.0)])
def test_weights_may_be_schedules(step, want):
    objectives = {
        "a": SquaredError(source="data", weight=LinearSchedule(start=1.0, end=3.0, steps=4))
    }
    _, state = start(objectives)
    total, (metrics, _) = make_loss(NETS, objectives, 0)(
        state.params, {}, state.memory, STREAMS, jnp.int32(step)
    )
    np.testing.assert_allclose(total, want * metrics["a/loss"][0], rtol=1e-6)


def test_metrics_are_not_differentiated_and_the_step_counts():
    optimizer, state = start(
        {"fit": FIT}, AdamW(learning_rate=LinearSchedule(start=0.0, end=1.0, steps=2))
    )
    step = jax.jit(make_step(NETS, {"fit": FIT}, optimizer), donate_argnums=0)
    before = {k: np.array(v) for k, v in paths(state.params).items()}
    state, metrics = step(state, STREAMS)
    assert state.step == 1 and metrics["learning_rate"][0] == 0
    for key, value in paths(state.params).items():
        np.testing.assert_array_equal(value, before[key])  # the first rate is 0
    _, metrics = step(state, STREAMS)
    assert metrics["learning_rate"][0] == 0.5
