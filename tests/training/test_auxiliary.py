"""What networks add to the losses by themselves, from `sow` to the metrics of a step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.config import spec
from taichu_jax.models.experts import AUXILIARY, Experts
from taichu_jax.models.transformer import Stack
from taichu_jax.objectives.base import Loss, Objective, Teacher
from taichu_jax.training.balance.pcgrad import PCGrad
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.optim import AdamW, Optimizer
from taichu_jax.training.sharding import MeshShape
from taichu_jax.training.state import init_state
from taichu_jax.training.step import make_losses, make_step
from tests.training import tiny
from tests.training.routed import Encoder, Tokens

X = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
MASK = np.arange(6) < np.array([6, 4, 6, 5])[:, None]
STREAMS = {"rows": {"x": X, "mask": MASK}}
NAMES = {"load_balance", "router_z", "load_entropy", "dropped"}


class Sower(nn.Module):
    """x * gain, which adds `gain` to the loss and tells 2 of 5."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x):
        gain = self.param("gain", nn.initializers.ones, ())
        if not self.is_initializing():
            self.sow(AUXILIARY, "loss", gain)
            self.sow(AUXILIARY, "twos", (jnp.float32(2), jnp.float32(5)))
        return x * gain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Objective):
    """Mean square of what a network makes of x, after the roles in `calls`."""

    net: str = "net"
    calls: tuple[str, ...] = ("trained",)

    def loss(self, nets, batch, memory, rng):
        inputs = (batch["x"], batch["mask"]) if self.net == "encoder" else (batch["x"],)
        roles = {"trained": nets, "teacher": nets.teacher, "frozen": nets.frozen}
        return Loss(sum(jnp.square(roles[role](self.net, *inputs)).mean() for role in self.calls))


def weighed(objectives):
    """(weighted losses, metrics) with a gain of 3."""
    params = {"net": {"gain": jnp.float32(3)}}
    teachers = {name: params for name in objectives}
    memory = dict.fromkeys(objectives)
    losses = make_losses({"net": Sower()}, objectives, 0)
    values, (metrics, _) = losses(params, teachers, memory, STREAMS, 0)
    return values, metrics


SQUARE = float(9 * np.square(X).mean())


def test_it_is_added_to_the_loss_and_told_apart():
    values, metrics = weighed({"a": Square(source="rows", weight=2.0)})
    np.testing.assert_allclose(values["a"], 2 * (SQUARE + 3), rtol=1e-5)
    np.testing.assert_allclose(metrics["a/loss"][0], SQUARE, rtol=1e-5)
    assert metrics["a/net/twos"] == (2, 5)


def test_teachers_and_frozen_networks_add_nothing():
    teacher = Teacher(nets=("net",))
    values, metrics = weighed(
        {"a": Square(source="rows", calls=("teacher", "frozen"), teacher=teacher)}
    )
    np.testing.assert_allclose(values["a"], 2 * SQUARE, rtol=1e-5)
    assert set(metrics) == {"a/loss"}


def test_a_shared_call_is_counted_once():
    both = {"a": Square(source="rows", calls=("trained", "trained")), "b": Square(source="rows")}
    values, metrics = weighed(both)
    np.testing.assert_allclose(values["a"], 2 * SQUARE + 3, rtol=1e-5)
    np.testing.assert_allclose(values["b"], SQUARE, rtol=1e-5)
    assert metrics["a/net/twos"] == (2, 5) and "b/net/twos" not in metrics


def test_calls_that_are_not_shared_are_counted_each():
    nets = BoundNets(
        {"net": Sower(dropout=0.5)}, {"net": {"gain": jnp.float32(3)}}, rng=jax.random.key(0)
    )
    nets("net", X), nets("net", X)
    assert nets.auxiliary_loss == 6 and nets.auxiliary_metrics == {"net/twos": (4, 10)}


def test_evaluation_collects_nothing():
    nets = BoundNets({"net": Sower()}, {"net": {"gain": jnp.float32(3)}})
    nets("net", X)
    assert nets.auxiliary_loss == 0 and nets.auxiliary_metrics == {}


def test_routers_stay_float32():
    stack = Stack(experts=Experts(count=2))
    seen = {}

    def spy(next_call, args, kwargs, context):
        if context.module.name in ("router", "query"):
            kernel = context.module.variables["params"]["kernel"]
            seen[context.module.name] = kernel.dtype
        return next_call(*args, **kwargs)

    def run():
        params = Encoder(stack).init(jax.random.key(0), X, MASK)["params"]
        nets = BoundNets({"net": Encoder(stack)}, {"net": params}, compute_dtype=jnp.bfloat16)
        with nn.intercept_methods(spy):
            return nets("net", X, MASK)

    assert jax.eval_shape(run).dtype == jnp.bfloat16
    assert seen == {"router": jnp.float32, "query": jnp.bfloat16}


def test_jitter_makes_calls_differ_in_training_only():
    encoder = Encoder(Stack(experts=Experts(count=4, jitter=0.9)))
    params = jax.eval_shape(encoder.init, jax.random.key(0), X, MASK)["params"]

    def traced(rng):
        nets = BoundNets({"net": encoder}, {"net": params}, rng=rng)
        nets._params = {"net": jax.tree.map(lambda s: jnp.zeros(s.shape), params)}
        return nets("net", X, MASK) is nets("net", X, MASK)

    # Shared only where both calls mean the same.
    same = []
    jax.eval_shape(lambda: same.append(traced(jax.random.key(0))))
    jax.eval_shape(lambda: same.append(traced(None)))
    assert same == [False, True]


def stepped(accumulate):
    """(gradients that Adam saw, metrics) of one step of an encoder with experts."""
    experts = Experts(count=4, every=2, capacity=1.0, balance=1.0, z=0.1)
    stack = Stack(remat="dots", scan=True, experts=experts)
    objectives = {
        "a": Square(source="rows", net="encoder"),
        "b": Square(source="rows", net="encoder", weight=0.5),
    }
    nets = {"encoder": Encoder(stack)}
    optimizer = Optimizer(AdamW(learning_rate=0.1, b1=0.0, clip=None, weight_decay=0.0))
    step = make_step(nets, objectives, optimizer, accumulate=accumulate)

    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(lambda: init_state(nets, objectives, STREAMS, optimizer, 0))
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    noise = jax.tree.map(lambda s: 0.3 * rng.normal(size=s.shape).astype(np.float32), shapes.params)
    state, metrics = jax.jit(step)(state.replace(params=noise), STREAMS)
    return state.opt_state.mu, metrics


def test_experts_through_a_whole_step():
    """Scanned, rematerialised, two objectives that share one pass, micro-batches."""
    grads, metrics = stepped(accumulate=1)
    told = {name.split("/")[-1]: m for name, m in metrics.items() if name.startswith("a/encoder")}
    assert set(told) == NAMES and not any(name.startswith("b/encoder") for name in metrics)
    assert told["load_balance"][1] == 2 and told["load_balance"][0] > 1.9  # two mixtures
    assert told["dropped"][1] == 2 * MASK.sum() and 0 < told["dropped"][0] < MASK.sum()
    added = told["load_balance"][0] + 0.1 * told["router_z"][0]
    loss = metrics["a/loss"][0] + 0.5 * metrics["b/loss"][0] + added
    np.testing.assert_allclose(metrics["loss"][0], loss, rtol=1e-5)
    router = next(g for path, g in grads.items() if path.endswith("router/kernel"))
    assert router.shape == (2, 8, 4) and (np.abs(router).max((1, 2)) > 1e-3).all()

    _, parts = stepped(accumulate=2)
    assert parts["a/encoder/load_balance"][1] == 4  # two mixtures in two micro-batches
    # Rows are routed by themselves, so the halves drop what the whole drops.
    np.testing.assert_array_equal(parts["a/encoder/dropped"], told["dropped"])


def test_the_step_of_a_config_sees_its_mesh():
    """Constraints on activations are in the program that `train_step` compiles, on many devices only."""

    def hints(mesh):
        config = tiny.on_one_device()
        config.networks = {"encoder": spec(Encoder, stack=spec(Stack, scan=True))}
        config.objectives = {"a": spec(Tokens, source="rows")}
        config.mesh = spec(MeshShape, **mesh)
        built = Experiment.from_config(config)
        batch = {"rows": tiny.Rows().fields()}
        return str(built.train_step().trace(built.abstract_state(), batch).jaxpr).count(
            "sharding_constraint"
        )

    assert hints({"data": 1}) == 0
    assert hints({"data": 2, "expert": 2, "sequence": 2}) > 5


def test_a_balance_sees_it_in_the_objective_that_called():
    """PCGrad: the gradient of `a` is that of its loss and of the gain, that of `b` of its loss."""
    objectives = {"a": Square(source="rows"), "b": Square(source="rows", weight=0.5)}
    losses = make_losses({"net": Sower()}, objectives, 0)

    def weighed(trained):
        params = {"net": {"gain": trained["net/gain"]}}
        values, (metrics, _) = losses(params, {}, dict.fromkeys(objectives), STREAMS, 0)
        return values, metrics

    grads, _ = PCGrad().differentiate(weighed, {"net/gain": jnp.float32(3)})
    slope = 2 * SQUARE / 3
    np.testing.assert_allclose(grads["a"]["net/gain"], slope + 1, rtol=1e-5)
    np.testing.assert_allclose(grads["b"]["net/gain"], slope / 2, rtol=1e-5)
