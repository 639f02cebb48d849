"""The mixture of experts against a loop over tokens in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.experts import AUXILIARY, Experts, Mixture, group_size, largest
from taichu_jax.training.sharding import MeshShape, batch_sharding, on_mesh, state_sharding

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 8, 6)).astype(np.float32)
REAL = np.arange(8) < np.array([8, 5, 8, 3, 8, 0, 7, 8])[:, None]
HIDDEN, COUNT = 10, 4


def noisy(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: 0.5 * rng.normal(size=s.shape).astype(np.float32), shapes)


@functools.cache
def params():
    model = Mixture(Experts(count=COUNT), HIDDEN)
    return noisy(jax.eval_shape(model.init, jax.random.key(0), X, REAL)["params"])


@functools.cache
def apply(training=True, causal=False, **fields):
    """Jitted (params, x, real) -> (y, what is sown)."""
    model = Mixture(Experts(count=COUNT, **fields), HIDDEN, causal=causal)

    def run(params, x, real):
        mutable = [AUXILIARY] if training else []
        y, sown = model.apply({"params": params}, x, real, mutable=mutable)
        return y, {name: values[0] for name, values in sown.get(AUXILIARY, {}).items()}

    return jax.jit(run)


def expert(x, tree, e):
    hidden = x @ tree["up"]["kernel"][e] + tree["up"]["bias"][e]
    hidden = np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden])
    return hidden @ tree["down"]["kernel"][e] + tree["down"]["bias"][e]


def loop(x, real, tree, k, capacity, group, causal=False):
    """(y, load balance, z, dropped, choices, entropy), one token and one choice at a time."""
    tree = jax.tree.map(lambda p: np.asarray(p, np.float64), tree)
    tokens = x.reshape(-1, x.shape[-1]).astype(np.float64)
    there = real.reshape(-1)
    logits = tokens @ tree["router"]["kernel"]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    best = np.argsort(-probabilities, axis=-1)[:, :k]
    y = np.zeros_like(tokens)
    load, dropped = np.zeros(COUNT), 0
    for start in range(0, len(tokens), group):
        inside = range(start, start + group)
        line = [(t, j) for j in range(k) for t in inside]
        if causal:
            line = [(t, j) for t in inside for j in range(k)]
        room = [capacity] * COUNT
        for t, j in line:
            if not there[t]:
                continue
            e = best[t, j]
            load[e] += 1
            if room[e] == 0:
                dropped += 1
                continue
            room[e] -= 1
            gate = probabilities[t, e]
            if k > 1:
                gate /= probabilities[t, best[t]].sum()
            y[t] += gate * expert(tokens[t], tree, e)
    share = load / load.sum()
    balance = COUNT * sum(f * p for f, p in zip(share, probabilities[there].mean(0), strict=True))
    z = np.mean([np.log(np.exp(row).sum()) ** 2 for row in logits[there]])
    entropy = -sum(f * math.log(f) for f in share if f) / math.log(COUNT)
    return y.reshape(x.shape), balance, z, dropped, load.sum(), entropy


@pytest.mark.parametrize(
    "k, factor, group, tokens, capacity, causal",
    [
        (1, 0.75, 0, 8, 2, False),  # overflow: ceil(0.75 * 8 / 4) = 2 places for 8 tokens
        (1, 4.0, 0, 8, 8, False),
        (2, 0.75, 0, 8, 3, False),
        (2, 0.75, 0, 8, 3, True),
        (2, 0.5, 20, 16, 4, False),  # two rows share their experts
        (1, 1.0, 5, 4, 1, False),  # half a row each
    ],
)
def test_mixture_is_the_loop(k, factor, group, tokens, capacity, causal):
    assert group_size(8, 8, group) == tokens
    fields = {"chosen": k, "capacity": factor, "group": group, "z": 0.1}
    y, sown = apply(causal=causal, **fields)(params(), X, REAL)
    want, balance, z, dropped, choices, entropy = loop(
        X, REAL, params(), k, capacity, tokens, causal
    )
    np.testing.assert_allclose(y, want, atol=1e-4)
    assert (dropped > 0) == (factor < 4)
    assert [float(v) for v in sown["dropped"]] == [dropped, choices]
    np.testing.assert_allclose(sown["load_balance"], (balance, 1), rtol=1e-5)
    np.testing.assert_allclose(sown["router_z"], (z, 1), rtol=1e-5)
    np.testing.assert_allclose(sown["load_entropy"], (entropy, 1), rtol=1e-5)
    np.testing.assert_allclose(sown["loss"], 0.01 * balance + 0.1 * z, rtol=1e-5)


def test_padding_is_neither_routed_nor_counted():
    y, sown = apply(capacity=0.75)(params(), X, REAL)
    spoiled = np.where(REAL[..., None], X, 9.0)
    again, told = apply(capacity=0.75)(params(), spoiled, REAL)
    np.testing.assert_array_equal(y, again)
    assert (np.asarray(y)[~REAL] == 0).all()
    for name, value in sown.items():
        np.testing.assert_allclose(told[name], value, rtol=1e-5)


def test_nothing_there_is_finite():
    none = np.zeros_like(REAL)

    def total(tree):
        y, sown = apply(capacity=0.75)(tree, X, none)
        return y.sum() + sown["loss"], sown

    (value, sown), grads = jax.value_and_grad(total, has_aux=True)(params())
    assert value == 0 and all((g == 0).all() for g in jax.tree.leaves(grads))
    assert all(sown[name][1] == 0 for name in sown if name != "loss")


def test_a_uniform_router_costs_alpha():
    tree = params() | {"router": {"kernel": np.zeros((6, COUNT), np.float32)}}
    for k in (1, 2):
        _, sown = apply(chosen=k, capacity=0.75, balance=0.03)(tree, X, REAL)
        np.testing.assert_allclose(sown["loss"], 0.03, rtol=1e-5)
        np.testing.assert_allclose(sown["router_z"][0], math.log(COUNT) ** 2, rtol=1e-5)


def test_capacity_of_training_and_of_evaluation():
    fields = {"capacity": 0.75, "evaluation_capacity": 4.0}
    trained, _ = apply(**fields)(params(), X, REAL)
    evaluated, sown = apply(training=False, **fields)(params(), X, REAL)
    assert sown == {}
    np.testing.assert_allclose(evaluated, loop(X, REAL, params(), 1, 8, 8)[0], atol=1e-4)
    dropped = (np.asarray(trained) == 0).all(-1) & REAL
    assert 0 < dropped.sum() < REAL.sum()
    np.testing.assert_allclose(trained[~dropped], evaluated[~dropped], atol=1e-5)
    assert Experts(count=8, chosen=2, capacity=1.1).slots(40, True) == 11
    assert Experts(count=2, evaluation_capacity=2.0).slots(6, False) == 6


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_are_those_of_all_experts_on_all_tokens(k):
    """Without drops: every expert computes every token, and the router's gates weigh the results."""
    target = RNG.normal(size=X.shape).astype(np.float32)

    def sparse(tree, x):
        y, sown = apply(chosen=k, capacity=float(COUNT), z=0.1)(tree, x, REAL)
        return (y * target).sum() + sown["loss"]

    def dense(tree, x):
        logits = x @ tree["router"]["kernel"]
        p = jax.nn.softmax(logits)
        best = p >= jnp.sort(p, axis=-1)[..., -k : COUNT - k + 1]
        gates = jnp.where(best & REAL[..., None], p, 0)
        if k > 1:
            gates /= jnp.maximum(gates.sum(-1, keepdims=True), 1e-9)
        up, down = tree["up"], tree["down"]
        hidden = jnp.einsum("bnd,edf->bnef", x, up["kernel"]) + up["bias"]
        hidden = jax.nn.gelu(hidden, approximate=False)
        y = jnp.einsum("bnef,efd->bned", hidden, down["kernel"]) + down["bias"]
        y = (gates[..., None] * y).sum(2)
        share = (best & REAL[..., None]).sum((0, 1)) / (k * REAL.sum())
        balance = COUNT * (share * p[REAL].mean(0)).sum()
        z = jnp.square(jax.nn.logsumexp(logits[REAL], -1)).mean()
        return (y * target).sum() + 0.01 * balance + 0.1 * z

    got = jax.jit(jax.value_and_grad(sparse, argnums=(0, 1)))(params(), X)
    want = jax.jit(jax.value_and_grad(dense, argnums=(0, 1)))(params(), X)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.abs(b).max()),
        got,
        want,
    )
    assert np.abs(got[1][0]["router"]["kernel"]).max() > 0.1


def test_a_causal_stack_stays_causal_when_experts_overflow():
    real, changed = np.ones_like(REAL), X.copy()
    changed[:, 5:] = RNG.normal(size=X[:, 5:].shape)

    def moved(causal):
        run = apply(causal=causal, chosen=2, capacity=0.75)
        before, after = run(params(), X, real)[0], run(params(), changed, real)[0]
        return np.abs(before - after)[:, :5].max()

    assert moved(causal=True) == 0
    assert moved(causal=False) > 0.01  # first choices of later tokens go before second ones


def test_jitter_is_drawn_in_training_only():
    model = Mixture(Experts(count=COUNT, jitter=0.5, capacity=4.0), HIDDEN)

    @functools.partial(jax.jit, static_argnames=("training", "draws"))
    def run(seed, training, draws=True):
        rngs = {"dropout": jax.random.key(seed)} if draws else {}
        mutable = [AUXILIARY] if training else []
        return model.apply({"params": params()}, X, REAL, rngs=rngs, mutable=mutable)[0]

    calm, _ = apply(capacity=4.0)(params(), X, REAL)
    assert np.abs(run(0, True) - run(1, True)).max() > 0.01
    np.testing.assert_allclose(run(0, True, draws=False), calm, atol=1e-6)
    np.testing.assert_allclose(run(0, False), run(1, False), atol=0)


def test_experts_start_apart_and_as_dense_layers_do():
    model = Mixture(Experts(count=3), 64)
    tree = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2, 32)), np.ones((1, 2), bool))
    assert set(tree) == {"params"}  # nothing is sown while parameters are made
    up = np.asarray(tree["params"]["up"]["kernel"])
    np.testing.assert_allclose(up.std((1, 2)), 32**-0.5, rtol=0.1)
    assert np.abs(up[0] - up[1]).max() > 0.1


@pytest.mark.parametrize(
    "mesh", [{"data": 2, "expert": 4}, {"data": 1, "expert": 2, "sequence": 2, "tensor": 2}]
)
def test_a_mesh_equals_one_device(mesh):
    mesh = MeshShape(**mesh).make()
    model = Mixture(Experts(count=COUNT, chosen=2, z=0.1), HIDDEN)
    tree = {"experts": params()}

    def total(tree, x, real):
        y, sown = model.apply({"params": tree["experts"]}, x, real, mutable=[AUXILIARY])
        return jnp.square(y).sum() + sown[AUXILIARY]["loss"][0]

    run = jax.value_and_grad(total, argnums=(0, 1))
    want = jax.jit(run)(tree, X, REAL)
    shardings = state_sharding(tree, mesh)
    placed = (
        jax.device_put(tree, shardings),
        *jax.device_put((X, REAL), batch_sharding(mesh)),
    )
    lowered = jax.jit(on_mesh(run, mesh)).lower(*placed).compile()
    got = lowered(*placed)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max()),
        got,
        want,
    )
    assert placed[0]["experts"]["up"]["kernel"].addressable_shards[0].data.shape[0] < COUNT
    program = lowered.as_text()
    assert "all-to-all" in program
    if mesh.shape["expert"] == 4:  # there and back, in both directions, and nothing else
        assert program.count(" all-to-all(") == 4 and " all-gather(" not in program


def test_the_largest_come_in_order():
    x = jnp.asarray([[0.1, 0.5, 0.4, 0.5], [0.3, 0.2, 0.5, 0.0]])
    want = jax.lax.top_k(x, 3)[1]
    np.testing.assert_array_equal(largest(x, 3).argmax(-1), want)
    assert (largest(x, 3).sum(-1) == 1).all()


def test_groups_are_whole_rows_or_equal_parts():
    assert [group_size(6, 10, n) for n in (0, 1, 4, 5, 9, 10, 25, 30, 45, 60, 99)] == [
        *(10, 1, 2, 5, 5, 10, 20, 30, 30, 60, 60)
    ]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"count": 0}, "stack.experts.count=0: must be at least 1"),
        ({"count": 4, "every": 0}, "stack.experts.every=0: must be at least 1"),
        ({"count": 4, "chosen": 5}, "stack.experts.chosen=5: must be from 1 to 4"),
        ({"count": 4, "capacity": 0.0}, "stack.experts.capacity=0.0: must be above 0"),
        ({"count": 4, "z": -1.0}, "stack.experts.z=-1.0: must be 0 or more"),
        ({"count": 4, "jitter": 1.0}, "stack.experts.jitter=1.0: must be from 0 to below 1"),
    ],
)
def test_wrong_settings_are_named(fields, message):
    with pytest.raises(UserError) as caught:
        Experts(**fields)
    assert str(caught.value) == message
