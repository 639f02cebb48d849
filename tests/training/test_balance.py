"""Balances of several losses, against what their papers' formulas give by hand."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from taichu_jax.config import from_json, spec, to_json
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Linear as LinearSchedule
from taichu_jax.training.balance.fixed import Fixed
from taichu_jax.training.balance.grad_norm import GradNorm
from taichu_jax.training.balance.pcgrad import PCGrad, project
from taichu_jax.training.balance.uncertainty import Uncertainty
from taichu_jax.training.checkpoint import Checkpoints, _split
from taichu_jax.training.directory import CONFIG, RunDirectory, load_config
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.optim import DEFAULT_RULES, AdamW, Optimizer, Rule
from taichu_jax.training.sharding import MeshShape, batch_sharding, state_sharding
from taichu_jax.training.state import init_state
from taichu_jax.training.step import make_losses, make_step
from tests.training import tiny

SIZE = 3
RNG = np.random.default_rng(0)
STREAMS = {
    "rows": {
        n: RNG.normal(m, 1, (8, SIZE)).astype(np.float32)
        for n, m in zip("abc", (1, -2, 3), strict=True)
    }
}
MEANS = {name: rows.mean(0) for name, rows in STREAMS["rows"].items()}
KEY = jax.random.key(3)
ALL = (Uncertainty(), GradNorm(), PCGrad())
every_balance = pytest.mark.parametrize("balance", ALL, ids=lambda b: type(b).__name__)


class Point(nn.Module):
    """Two vectors."""

    @nn.compact
    def __call__(self):
        return self.param("kernel", nn.initializers.normal(1.0), (2, SIZE))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pull(Objective):
    """Half the mean squared distance of a network, and a head's own shift, to rows of the stream."""

    to: str
    head: str | None = None

    def loss(self, nets, batch, memory, rng):
        place = nets("point") + (nets(self.head) if self.head else 0.0)
        return Loss(0.5 * jnp.square(place - batch[self.to][:, None]).sum((1, 2)).mean())


NETS = {"point": Point(), "head_a": Point(), "head_b": Point()}
TWO = {"a": Pull(source="rows", to="a", head="head_a"), "b": Pull(source="rows", to="b")}
ADAM = AdamW(learning_rate=0.1, clip=None, weight_decay=0.0)


def start(balance, objectives=TWO, settings=ADAM):
    optimizer = Optimizer(settings, balance.rules)
    return optimizer, init_state(NETS, objectives, STREAMS, optimizer, 0, balance)


def one_step(balance, objectives=TWO, settings=ADAM, times=1):
    """(state before, state after, means of the last step's metrics)."""
    optimizer, first = start(balance, objectives, settings)
    step, state = jax.jit(make_step(NETS, objectives, optimizer, balance=balance)), first
    for _ in range(times):
        state, metrics = step(state, STREAMS)
    return first, state, means(metrics)


def means(metrics):
    return {name: s / n for name, (s, n) in metrics.items()}


@functools.cache
def compiled(balance, accumulate=1, **mesh):
    """(donating step on a mesh, the state's shardings), for `TWO`."""
    devices = MeshShape(**{"data": 1} | mesh).make()
    optimizer, state = start(balance)
    where = state_sharding(state, devices)
    step = jax.jit(
        make_step(NETS, TWO, optimizer, balance=balance, accumulate=accumulate),
        in_shardings=(where, batch_sharding(devices)),
        out_shardings=(where, None),
        donate_argnums=0,
    )
    return step, where


def three_steps(balance, **options):
    """(state, metrics)."""
    step, where = compiled(balance, **options)
    state = jax.device_put(start(balance)[1], where)
    for _ in range(3):
        state, metrics = step(state, STREAMS)
    return state, metrics


def applied(state, settings=ADAM):
    """The gradient that the optimiser took in the first step, from its first moment."""
    return {path: np.asarray(m) / (1 - settings.b1) for path, m in state.opt_state.mu.items()}


JITTED: dict = {}
PROJECT = jax.jit(project)


def combine(balance, grads, losses=None, carried=None, rng=KEY):
    """`combine` on gradients given as {objective: {path: numbers}}."""
    grads = {n: {k: jnp.asarray(v, jnp.float32) for k, v in g.items()} for n, g in grads.items()}
    losses = {n: jnp.float32((losses or {}).get(n, 1.0)) for n in grads}
    trained = next(iter(grads.values()))
    carried = balance.start(grads, trained) if carried is None else carried
    run = JITTED.setdefault(
        repr(balance), jax.jit(lambda grads, **kw: balance.combine(grads, **kw))
    )
    return run(grads, trained=trained, losses=losses, carried=carried, rng=rng)


# The plain sum.


def test_fixed_is_one_gradient_of_the_sum_to_the_last_bit():
    objectives = TWO | {
        "c": Pull(source="rows", to="c", weight=LinearSchedule(start=0.3, end=1, steps=3))
    }
    optimizer, state = start(Fixed(), objectives)
    losses = make_losses(NETS, objectives, 0)

    @jax.jit
    def plain(state):
        def total(params):
            values, _ = losses(params, {}, state.memory, STREAMS, state.step)
            return 0.0 + values["a"] + values["b"] + values["c"]

        value, grads = jax.value_and_grad(total)(state.params)
        trained = optimizer.split(state.params)[0]
        updates, _ = optimizer.update(optimizer.split(grads)[0], state.opt_state, trained, 0)
        return value, optimizer.join(optax.apply_updates(trained, updates), {})

    value, params = plain(state)
    _, new, metrics = one_step(Fixed(), objectives)
    jax.tree.map(np.testing.assert_array_equal, new.params, params)
    assert metrics["loss"] == value
    assert set(metrics) == {"a/loss", "b/loss", "c/loss", "loss", "gradient_norm", "learning_rate"}


def test_only_what_is_carried_is_in_the_state_and_in_checkpoints():
    always = {"step", "opt_state", "teachers", "memory"}
    for balance in (Fixed(), Uncertainty(), PCGrad()):
        state = start(balance)[1]
        assert state.balance is None and set(_split(state)["rest"]) == always
        assert ("balance" in state.params) == isinstance(balance, Uncertainty)
    assert set(_split(start(GradNorm(), TWO)[1])["rest"]) == always | {"balance"}


# What holds for every balance.


@every_balance
def test_accumulated_gradients_are_balanced_once(balance):
    whole, one = three_steps(balance)
    parts, four = three_steps(balance, accumulate=4)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    jax.tree.map(close, (whole.params, whole.balance), (parts.params, parts.balance))
    jax.tree.map(close, means(one), means(four))


@every_balance
def test_one_objective_trains_as_without(balance):
    before, after, metrics = one_step(balance, {"a": TWO["a"]})
    got = applied(after)
    want = before.params["point"]["kernel"] + before.params["head_a"]["kernel"] - MEANS["a"]
    for path in ("point/kernel", "head_a/kernel"):
        np.testing.assert_allclose(got[path], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["a/weight"], 1.0)
    if isinstance(balance, GradNorm):
        np.testing.assert_array_equal(after.balance["weights"], [1.0])


@every_balance
def test_clipping_comes_after_and_the_own_weight_first(balance):
    weight = LinearSchedule(start=3.0, end=9.0, steps=2)
    objectives = TWO | {"b": dataclasses.replace(TWO["b"], weight=weight)}
    first, state, metrics = one_step(balance, objectives, dataclasses.replace(ADAM, clip=0.1))
    point = first.params["point"]["kernel"]
    a = point + first.params["head_a"]["kernel"] - MEANS["a"]
    b = 3 * (point - MEANS["b"])
    inner = min((a * b).sum(), 0.0) if isinstance(balance, PCGrad) else 0.0
    factors = 1 - inner / (a * a).sum(), 1 - inner / (b * b).sum()
    want = {"head_a/kernel": a, "point/kernel": factors[0] * a + factors[1] * b}
    if isinstance(balance, Uncertainty):
        for name, w in (("a", 1), ("b", 3)):
            want[f"balance/log_variance/{name}"] = 1 - w * metrics[f"{name}/loss"]
    norm = np.sqrt(sum(np.square(g).sum() for g in want.values()))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    for path, g in applied(state).items():
        np.testing.assert_allclose(g, want[path] * 0.1 / norm, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        metrics["loss"], metrics["a/loss"] + 3 * metrics["b/loss"], rtol=1e-6
    )
    got = [metrics["a/weight"], metrics["b/weight"]]
    np.testing.assert_allclose(got, [factors[0], 3 * factors[1]], rtol=1e-5)


@every_balance
def test_eight_devices_and_donated_buffers(balance):
    one = three_steps(balance)
    many = three_steps(balance, data=2, fsdp=2, tensor=2)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one, many)
    state = many[0]
    assert not state.params["point"]["kernel"].sharding.is_fully_replicated
    own = jax.tree.leaves((state.balance, state.params.get("balance")))
    assert all(x.sharding.is_fully_replicated for x in own)


@every_balance
def test_a_resumed_run_is_the_same_run(balance, tmp_path):
    state, _ = three_steps(balance)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, 3, {})
    checkpoints.wait()
    restored, at, _ = checkpoints.restore(like)
    assert at == 3
    step, _ = compiled(balance)
    for _ in range(3):
        state, metrics = step(state, STREAMS)
        restored, again = step(restored, STREAMS)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, (restored, again), (state, metrics))


@every_balance
def test_a_config_names_it(balance):
    """From the config to the metrics of the step, without compiling."""
    config = tiny.on_one_device()
    config.objectives.other = spec(tiny.Distance, source="rows", weight=0.5)
    config.balance = spec(type(balance))
    built = Experiment.from_config(from_json(to_json(config)))
    assert built.balance == balance
    batch = {"rows": tiny.Rows().fields()}
    state, metrics = jax.eval_shape(built.train_step(), built.abstract_state(), batch)
    assert {"distance/weight", "other/weight"} <= set(metrics)
    assert jax.tree.structure(state) == jax.tree.structure(built.abstract_state())
    if isinstance(balance, Uncertainty):
        rule = built.optimizer.rule("balance/log_variance/other")
        assert (rule.rate, rule.decay) == (1.0, 0.0)


def test_runs_from_before_the_key_go_on_but_not_with_another_balance(tmp_path):
    config = tiny.on_one_device()
    with RunDirectory(tmp_path, config):
        pass
    saved = json.loads((tmp_path / CONFIG).read_text())
    assert saved.pop("balance")
    (tmp_path / CONFIG).write_text(json.dumps(saved))
    assert load_config(tmp_path).balance == spec(Fixed)
    with RunDirectory(tmp_path, config):
        pass
    config.balance = spec(PCGrad)
    with pytest.raises(UserError, match=r"another config: balance.kind: .*Fixed -> .*PCGrad"):
        RunDirectory(tmp_path, config).__enter__()


# Uncertainty.


def test_uncertainty_finds_the_logarithm_of_each_loss():
    """With the networks held, s_i = log L_i; decay does not pull at it, an absent one stays."""
    rules = (Rule(pattern=r"^(point|head)", rate=0.0), *DEFAULT_RULES)
    objectives = {
        "a": TWO["a"],
        "b": Pull(source="rows", to="b", weight=0.01),
        "off": Pull(source="rows", to="c", weight=0.0),
    }
    balance = Uncertainty(rate=0.5)
    settings = AdamW(learning_rate=0.2, clip=None, weight_decay=0.9, rules=rules)
    _, state, metrics = one_step(balance, objectives, settings, times=200)
    s = state.params["balance"]["log_variance"]
    np.testing.assert_allclose(s["a"], np.log(metrics["a/loss"]), atol=1e-3)
    np.testing.assert_allclose(s["b"], np.log(0.01 * metrics["b/loss"]), atol=1e-3)
    assert s["off"] == 0
    np.testing.assert_allclose(metrics["a/weight"] * metrics["a/loss"], 1.0, rtol=2e-3)
    np.testing.assert_allclose(metrics["b/weight"] * metrics["b/loss"], 1.0, rtol=2e-3)


def test_uncertainty_gradients_by_hand():
    before, after, metrics = one_step(Uncertainty())
    got, point = applied(after), before.params["point"]["kernel"]
    a = point + before.params["head_a"]["kernel"] - MEANS["a"]
    np.testing.assert_allclose(got["head_a/kernel"], a, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["point/kernel"], a + point - MEANS["b"], rtol=1e-5, atol=1e-6)
    for name in "ab":
        np.testing.assert_allclose(
            got[f"balance/log_variance/{name}"], 1 - metrics[f"{name}/loss"], rtol=1e-5
        )
    losses = {"a": jnp.float32(2.0), "b": jnp.float32(5.0)}
    s = {"balance/log_variance/a": jnp.float32(0.3), "balance/log_variance/b": jnp.float32(-1.0)}
    want = 2 * np.exp(-0.3) + 0.3 + 5 * np.exp(1.0) - 1.0
    np.testing.assert_allclose(Uncertainty().total(losses, s), want, rtol=1e-6)


# PCGrad.


def slow_pcgrad(grads, order):
    """Algorithm 1."""
    projected = []
    for i, g in enumerate(grads):
        g = g.copy()
        for j in order[i]:
            if j != i and g @ grads[j] < 0:
                g -= g @ grads[j] / (grads[j] @ grads[j]) * grads[j]
        projected.append(g)
    return np.stack(projected)


def test_pcgrad_of_two_vectors():
    grads = {"a": {"w": [1.0, 0.0]}, "b": {"w": [-1.0, 1.0]}}
    out = combine(PCGrad(), grads)
    np.testing.assert_allclose(out.grads["w"], [0.5, 1.5], rtol=1e-6)
    np.testing.assert_allclose([out.factors["a"], out.factors["b"]], [2.0, 1.5], rtol=1e-6)
    assert out.metrics["conflict_rate"] == (1.0, 1.0)
    for other in ([0.0, 2.0], [3.0, 1.0], [0.0, 0.0]):
        out = combine(PCGrad(), grads | {"b": {"w": other}})
        np.testing.assert_array_equal(out.grads["w"], [1 + other[0], other[1]])
        assert out.metrics["conflict_rate"] == (0.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_of_many_vectors_in_a_given_order(seed):
    rng = np.random.default_rng(seed)
    n = 3 + seed % 2
    grads = rng.normal(size=(n, 2 + seed % 3))
    order = np.stack([rng.permutation(n) for _ in range(n)])
    factors = PROJECT(jnp.asarray(grads @ grads.T, jnp.float32), jnp.asarray(order))
    np.testing.assert_allclose(factors @ grads, slow_pcgrad(grads, order), rtol=1e-4, atol=1e-5)


def test_pcgrad_draws_its_order_from_the_step():
    grads = np.asarray([[1.0, 0.0, 0.1], [-0.7, 0.7, -0.2], [-0.8, -0.6, 0.3]])
    given = {name: {"w": g} for name, g in zip("abc", grads, strict=True)}
    seen = set()
    for i in range(8):
        rng = jax.random.fold_in(KEY, i)
        order = np.argsort(jax.random.uniform(fold_name(rng, "pcgrad"), (3, 3)), 1)
        got = combine(PCGrad(), given, rng=rng).grads["w"]
        np.testing.assert_allclose(got, slow_pcgrad(grads, order).sum(0), rtol=1e-4, atol=1e-6)
        seen.add(str(np.round(got, 4)))
    assert len(seen) > 1


def test_pcgrad_leaves_what_one_objective_alone_reaches():
    grads = {
        "a": {"shared": [1.0, 0.0], "head": [0.0]},
        "b": {"shared": [-1.0, 1.0], "head": [3.0]},
    }
    out = combine(PCGrad(), grads)
    np.testing.assert_allclose(out.grads["shared"], [0.5, 1.5], rtol=1e-6)
    np.testing.assert_array_equal(out.grads["head"], [3.0])
    out = combine(PCGrad(parameters=".*"), grads)  # as one vector: (1, 0, 0) and (-1, 1, 3)
    a, b = np.asarray([1.0, 0, 0]), np.asarray([-1.0, 1, 3])
    want = a + b / 11 + b + a
    np.testing.assert_allclose(np.r_[out.grads["shared"], out.grads["head"]], want, rtol=1e-6)
    out = combine(PCGrad(parameters="^head$"), grads)
    np.testing.assert_array_equal(out.grads["shared"], [0.0, 1.0])


# GradNorm.


def slow_grad_norm(settings, steps):
    """Algorithm 1 with finite differences and Adam, over [(gradients at shared, losses)]."""
    n = len(steps[0][0])
    w, m, v, first = np.ones(n), np.zeros(n), np.zeros(n), steps[0][1]
    for t, (grads, losses) in enumerate(steps, 1):
        ratio = losses / first

        def norms(w, grads=grads):
            return np.asarray([np.linalg.norm(a * g) for a, g in zip(w, grads, strict=True)])

        target = norms(w).mean() * (ratio / ratio.mean()) ** settings.alpha

        def cost(w, norms=norms, target=target):
            return np.abs(norms(w) - target).sum()

        slope = np.asarray([(cost(w + e) - cost(w - e)) / 2e-6 for e in 1e-6 * np.eye(n)])
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        w = w - settings.learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w = w * n / w.sum()
    return w


def test_grad_norm_follows_the_paper_with_finite_differences():
    rng = np.random.default_rng(5)
    steps = [(rng.normal(size=(3, 4)) * [[1], [3], [9]], rng.uniform(1, 4, 3)) for _ in range(4)]
    balance = GradNorm(alpha=0.7, learning_rate=0.1)
    carried = None
    for i, (grads, losses) in enumerate(steps):
        w = np.ones(3) if carried is None else np.asarray(carried["weights"])
        given = {n: {"w": g, "head": [2.0 * (n == "b")]} for n, g in zip("abc", grads, strict=True)}
        out = combine(balance, given, dict(zip("abc", losses, strict=True)), carried)
        np.testing.assert_allclose(out.grads["w"], w @ grads, rtol=1e-5)
        np.testing.assert_allclose(out.grads["head"], [2 * w[1]], rtol=1e-6)  # but in no norm
        norms = [out.metrics[f"{n}/shared_gradient_norm"][0] for n in "abc"]
        np.testing.assert_allclose(norms, w * np.linalg.norm(grads, axis=1), rtol=1e-5)
        carried = out.carried
        want = slow_grad_norm(balance, steps[: i + 1])
        np.testing.assert_allclose(carried["weights"], want, rtol=1e-4)
        np.testing.assert_allclose(carried["weights"].sum(), 3.0, rtol=1e-6)
        np.testing.assert_allclose(carried["initial"], steps[0][1], rtol=1e-6)


def test_grad_norm_makes_norms_equal_where_no_objective_lags():
    """alpha = 0, gradients of fixed lengths 1 and 4: the weights tend to 1.6 and 0.4."""
    balance = GradNorm(alpha=0.0, learning_rate=0.01)
    grads = {"a": {"w": [1.0, 0.0]}, "b": {"w": [0.0, 4.0]}}
    carried = balance.start(grads, ["w"])
    for _ in range(200):
        carried = combine(balance, grads, carried=carried).carried
    np.testing.assert_allclose(carried["weights"], [1.6, 0.4], atol=0.03)


def test_grad_norm_lets_absent_objectives_stand_aside():
    grads = {"a": {"w": [1.0, 0.0]}, "b": {"w": [0.0, 4.0]}, "c": {"w": [0.0, 0.0]}}
    losses = {"a": 2.0, "b": 3.0, "c": 0.0}
    balance = GradNorm(initial={"b": 1.5}, learning_rate=0.1)
    first = combine(balance, grads, losses).carried
    np.testing.assert_allclose(first["initial"], [2.0, 1.5, 0.0])
    # Between a and b alone: pace 1 and 2, targets below 1.4 for a and above 3.8 for b.
    two = {n: grads[n] for n in "ab"}
    pair = combine(GradNorm(initial={"b": 1.5}, learning_rate=0.1), two, losses).carried
    ratio = first["weights"][0] / first["weights"][1]
    np.testing.assert_allclose(ratio, pair["weights"][0] / pair["weights"][1], rtol=1e-5)
    np.testing.assert_allclose(first["weights"].sum(), 3.0, rtol=1e-6)
    losses["c"] = 7.0
    grads["c"] = {"w": [1.0, 1.0]}
    second = combine(balance, grads, losses, first).carried
    np.testing.assert_allclose(second["initial"], [2.0, 1.5, 7.0])
    nothing = {n: {"w": [0.0, 0.0]} for n in "abc"}
    still = combine(balance, nothing, dict.fromkeys("abc", 0.0), second).carried
    np.testing.assert_allclose(still["weights"], second["weights"], rtol=1e-6)


def test_grad_norm_weights_stay_above_zero():
    balance = GradNorm(alpha=0.0, learning_rate=0.9)
    grads = {"a": {"w": [1.0]}, "b": {"w": [400.0]}}
    carried = None
    for _ in range(20):
        carried = combine(balance, grads, carried=carried).carried
        assert (carried["weights"] > 0).all() and np.isfinite(carried["weights"]).all()


# One backward pass per objective, of what it reaches.


@pytest.mark.parametrize("balance", (GradNorm(), PCGrad()), ids=lambda b: type(b).__name__)
def test_the_other_objectives_are_not_passed_backward(balance):
    passed = []

    def probed(name):
        @jax.custom_vjp
        def double(x):
            return 2 * x

        def backward(_, g):
            passed.append(name)
            return (2 * g,)

        double.defvjp(lambda x: (2 * x, None), backward)
        return double

    def losses(trained):
        return {n: jnp.square(probed(n)(trained[n])).sum() for n in "abc"}, "rest"

    trained = {n: jnp.full(2, 1.0 + i) for i, n in enumerate("abc")}
    grads, rest = balance.differentiate(losses, trained)
    assert rest == "rest" and sorted(passed) == ["a", "b", "c"]
    for i, name in enumerate("abc"):
        for path in "abc":
            want = 8 * (1 + i) if path == name else 0
            np.testing.assert_array_equal(grads[name][path], np.full(2, want))


# Mistakes.


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        (PCGrad(parameters="pont"), "parameters='pont': matches no trained parameter; .*point/ker"),
        (GradNorm(parameters="("), r"parameters='\(': is not a regular expression"),
        (GradNorm(initial={"x": 1.0}), r"initial.x: no such objective; valid: a, b"),
    ],
)
def test_settings_that_name_nothing(balance, message):
    with pytest.raises(UserError, match=f"config.balance.{message}"):
        start(balance, TWO)


def test_numbers_and_names_that_cannot_be():
    for make in (
        lambda: Uncertainty(rate=0.0),
        lambda: GradNorm(learning_rate=0.0),
        lambda: GradNorm(least=-1.0),
        lambda: GradNorm(initial={"a": 0.0}),
    ):
        with pytest.raises(UserError, match=r"config.balance.*: must be above 0"):
            make()
    optimizer = Optimizer(ADAM)
    with pytest.raises(UserError, match=r"config.networks.balance: config.balance has parameters"):
        nets = {"point": Point(), "balance": Point()}
        clash = {"a": Pull(source="rows", to="a", head="balance")}
        init_state(nets, clash, STREAMS, optimizer, 0, Uncertainty())
    config = tiny.get_config()
    config.balance = spec(AdamW, learning_rate=0.1)
    with pytest.raises(UserError, match=r"config.balance: is not a spec\(...\)"):
        Experiment.from_config(config)
