"""Calling networks by name: roles, errors, data types, creation of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.text import TextEncoder
from taichu_jax.training.nets import BoundNets, InitNets, merge
from tests.training.toy import Linear

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
PARAMS = {"net": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}
TEACHER = {"net": {"kernel": 2 * jnp.ones((4, 3)), "bias": jnp.ones(3)}}


def bound(params=PARAMS, teacher=TEACHER, **fields):
    return BoundNets({"net": Linear()}, params, teacher, owner="config.objectives.a", **fields)


def test_roles_use_their_weights_and_differentiate_what_they_should():
    s = X.sum(1, keepdims=True).repeat(3, 1)
    np.testing.assert_allclose(bound()("net", X), s, rtol=1e-5)
    np.testing.assert_allclose(bound().frozen("net", X), s, rtol=1e-5)
    np.testing.assert_allclose(bound().teacher("net", X), 2 * s + 1, rtol=1e-5)

    def moves(role):
        def loss(params, teacher, x):
            return jnp.square(getattr(bound(params, teacher), role)("net", x)).sum()

        grads = jax.grad(loss, argnums=(0, 1, 2))(PARAMS, TEACHER, X)
        return [any(np.abs(g).max() > 0 for g in jax.tree.leaves(tree)) for tree in grads]

    assert moves("__call__") == [True, False, True]
    assert moves("frozen") == [False, False, True]
    assert moves("teacher") == [False, False, False]


def test_errors_name_the_objective_and_the_choices():
    with pytest.raises(
        UserError, match=r"objectives.a: there is no network 'met'; did you mean 'net'"
    ):
        bound()("met", X)
    with pytest.raises(UserError, match=r"there is no network 'other'"):
        bound().teacher("other", X)
    with pytest.raises(UserError, match=r"teacher of network 'net', which its `teacher` does not"):
        bound(teacher=None).teacher("net", X)


def test_parameters_and_floating_inputs_are_cast():
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x, ids, mask):
            w = self.param("w", nn.initializers.ones, (4,))
            seen.append([v.dtype for v in (x, ids, mask, w)])
            return x * w

    ids, mask = jnp.zeros(2, jnp.int32), jnp.ones(2, bool)
    params = {"spy": {"w": jnp.ones(4)}}
    nets = BoundNets({"spy": Spy()}, params, compute_dtype=jnp.bfloat16)
    assert nets("spy", X, ids, mask).dtype == jnp.bfloat16
    assert seen == [[jnp.bfloat16, jnp.int32, bool, jnp.bfloat16]]
    assert BoundNets({"spy": Spy()}, params)("spy", X, ids, mask).dtype == jnp.float32


def test_dropout_is_on_in_training_only_and_never_in_a_teacher():
    nets = BoundNets(
        {"net": Linear(dropout=0.5)}, PARAMS, TEACHER, rng=jax.random.key(0), owner="a"
    )
    assert np.abs(nets("net", X) - nets("net", X)).max() > 0  # two views of one picture
    np.testing.assert_array_equal(nets.teacher("net", X), bound().teacher("net", X))
    calm = BoundNets({"net": Linear(dropout=0.5)}, PARAMS)
    np.testing.assert_array_equal(calm("net", X), bound()("net", X))


def test_created_parameters_depend_on_name_and_seed_only():
    modules = {"a": Linear(), "b": Linear()}

    def create(seed, *names):
        nets = InitNets(modules, jax.random.key(seed), owner="o", teacher_names=("a",))
        for name in names:
            nets(name, X)
        return nets.trained

    first, second = create(0, "a", "b"), create(0, "b", "a", "a")
    for name in "ab":
        jax.tree.map(np.testing.assert_array_equal, first[name], second[name])
    assert np.abs(first["a"]["kernel"] - first["b"]["kernel"]).max() > 0
    assert np.abs(first["a"]["kernel"] - create(1, "a")["a"]["kernel"]).max() > 0


def test_the_order_of_methods_does_not_matter():
    """`logits` first or `__call__` first: the same parameters."""
    fields = {"vocab_size": 12, "width": 8, "depth": 1, "heads": 2, "length": 4}
    tokens, states = jnp.ones((1, 4), jnp.int32), jnp.ones((1, 4, 8))

    def create(calls):
        modules = {"text": TextEncoder(**fields)}
        nets = InitNets(modules, jax.random.key(0), owner="o", teacher_names=())
        for method in calls:
            if method:
                nets("text", states, method=method)
            else:
                nets("text", tokens, tokens > 0)
        return nets.trained

    a, b = jax.jit(lambda: (create(["logits", None]), create([None, "logits"])))()
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_networks_keep_no_other_state():
    class Counter(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("stats", "count", jnp.zeros, ())
            return x

    nets = InitNets({"c": Counter()}, jax.random.key(0), owner="o", teacher_names=())
    with pytest.raises(UserError, match=r"network 'c' keeps state outside 'params': \['stats'\]"):
        nets("c", X)


def test_merge():
    assert merge({"a": {"x": 1}}, {"a": {"y": 2}, "b": 3}) == {"a": {"x": 1, "y": 2}, "b": 3}
