"""Scanned and rematerialised stacks compute what a plain loop over blocks does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.experts import AUXILIARY, Experts
from taichu_jax.models.stack import REMAT
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.transformer import Stack, Transformer
from taichu_jax.training.optim import DEFAULT_RULES, AdamW, Optimizer, paths
from taichu_jax.training.sharding import MeshShape, partition

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 8)).astype(np.float32)
MEMORY = RNG.normal(size=(2, 3, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1, 0], [1, 0, 1, 1, 1, 1]], bool)
MEMORY_MASK = np.array([[1, 1, 0], [0, 1, 1]], bool)
EXPERTS = Experts(count=3, chosen=2, every=2, capacity=1.0, z=0.1)
EVERYTHING = {"depth": 4, "heads": 2, "expansion": 2.0, "causal": True, "cross": True}
EVERYTHING |= {"relative_position": "gated"}


def scanned(params, depth, every):
    """Parameters of `block_0`, `block_1`, ... stacked under `blocks`."""
    rest = {k: v for k, v in params.items() if not k.startswith("block_")}

    def stacked(first):
        rows = [params[f"block_{i}"] for i in range(first, depth, every)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    if every == 1:
        return rest | {"blocks": stacked(0)}
    return rest | {"blocks": {f"block_{i}": stacked(i) for i in range(every)}}


def noisy(shapes):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: 0.3 * rng.normal(size=s.shape).astype(np.float32), shapes)


def shapes_of(model):
    init = jax.eval_shape(model.init, jax.random.key(0), X, MASK, MEMORY, MEMORY_MASK)
    return init["params"]


def graded(model):
    """Jitted params -> ((value, (states, layers, sown)), gradients)."""

    def total(params):
        (states, layers), sown = model.apply(
            {"params": params}, X, MASK, MEMORY, MEMORY_MASK, mutable=[AUXILIARY]
        )
        sums = {}
        for leaf, values in jax.tree_util.tree_leaves_with_path(sown):
            name = str(leaf[-2:]) if leaf[-1].idx else str(leaf[-1:])
            sums[name] = sums.get(name, 0.0) + values.sum()
        weights = jnp.arange(1.0, len(layers) + 1)
        value = sum(w * jnp.square(x).mean() for w, x in zip(weights, layers, strict=True))
        return value + jnp.sin(states).sum() + sum(sums.values()), (states, layers)

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@functools.cache
def plain(every):
    stack = Stack(experts=EXPERTS if every == 2 else None)
    model = Transformer(**EVERYTHING, stack=stack)
    params = noisy(shapes_of(model))
    return params, graded(model)(params)


def close(got, want):
    """Within 1e-6 of the largest number; some gradients are 0 but for rounding."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * largest), got, want
    )


@pytest.mark.parametrize(
    "every, scan, remat",
    [(1, True, "none"), (2, False, "full"), (2, False, "dots")]
    + [(2, True, remat) for remat in REMAT],
)
def test_scan_and_remat_change_nothing(every, scan, remat):
    """States before and after every block, auxiliary losses and all gradients."""
    params, (want, want_grads) = plain(every)
    model = Transformer(
        **EVERYTHING,
        stack=Stack(remat=remat, scan=scan, experts=EXPERTS if every == 2 else None),
    )
    if scan:
        params, want_grads = (scanned(tree, 4, every) for tree in (params, want_grads))
    expected = jax.tree.map(np.shape, params)
    assert jax.tree.map(lambda s: s.shape, shapes_of(model)) == expected
    got, grads = graded(model)(params)
    assert len(got[1][1]) == 5
    close(got, want)
    close(grads, want_grads)


def jaxpr(**fields):
    model = Transformer(heads=2, **fields)
    params = jax.eval_shape(model.init, jax.random.key(0), X, MASK)
    return str(jax.make_jaxpr(jax.grad(lambda p: model.apply(p, X, MASK)[0].sum()))(params))


def test_a_scanned_program_does_not_grow_with_the_depth():
    sizes = {
        (scan, depth): len(jaxpr(depth=depth, stack=Stack(scan=scan)).splitlines())
        for scan in (True, False)
        for depth in (2, 8)
    }
    # Beyond the block, only the list of the states after each grows.
    assert sizes[True, 8] - sizes[True, 2] < 40
    assert sizes[False, 8] > 3 * sizes[False, 2]


def test_remat_computes_products_again_or_not():
    count = {
        remat: jaxpr(depth=1, stack=Stack(remat=remat)).count("dot_general") for remat in REMAT
    }
    # 'dots' keeps the six products with weights and repeats the two of attention.
    assert count["full"] - count["dots"] == 6 - 1  # the last product's value is not needed at all
    assert count["dots"] - count["none"] in (1, 2)


def test_shared_layers_may_be_scanned_and_keep_their_name():
    fields = {"depth": 3, "heads": 2, "shared_layers": True}
    looped, in_scan = (Transformer(**fields, stack=Stack(scan=s)) for s in (False, True))
    params = noisy(jax.eval_shape(looped.init, jax.random.key(0), X, MASK))
    again = jax.eval_shape(in_scan.init, jax.random.key(0), X, MASK)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda s: s.shape, again)
    want, got = (jax.jit(model.apply)(params, X, MASK) for model in (looped, in_scan))
    close(got, want)


@pytest.mark.parametrize("shared", [False, True])
def test_scanned_layers_draw_their_own_dropout(shared):
    stack = Stack(scan=True, remat="full")
    model = Transformer(depth=2, heads=2, dropout=0.5, shared_layers=shared, stack=stack)
    params = jax.eval_shape(model.init, jax.random.key(0), X, MASK)["params"]
    params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), params)
    down = params["block_0" if shared else "blocks"]["feed_forward"]["down"]
    down["bias"] = np.ones_like(down["bias"])  # every layer adds ones, half of them dropped

    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply({"params": params}, X, MASK, rngs=rngs)[1]

    run = jax.jit(run)
    first, second = np.round(np.diff(np.stack(run(0)), axis=0), 4)
    assert set(np.unique(first)) == set(np.unique(second)) == {0, 2}
    assert 0.2 < (first == second).mean() < 0.8
    np.testing.assert_array_equal(run(0)[2], run(0)[2])
    assert (np.asarray(run(0)[2]) != run(1)[2]).any()


def test_scanned_layers_start_apart_with_the_deviation_of_one():
    x, mask = np.zeros((1, 2, 64), np.float32), np.ones((1, 2), bool)
    stack = Stack(scan=True, experts=Experts(count=2))
    model = Transformer(depth=4, heads=2, stack=stack)
    blocks = jax.jit(model.init)(jax.random.key(0), x, mask)["params"]["blocks"]
    query = np.asarray(blocks["block_0"]["attention"]["query"]["kernel"])
    up = np.asarray(blocks["block_1"]["experts"]["up"]["kernel"])
    assert query.shape == (2, 64, 64) and up.shape == (2, 2, 64, 256)
    np.testing.assert_allclose(query.std((1, 2)), 1 / 8, rtol=0.05)
    np.testing.assert_allclose(up.std((2, 3)), 1 / 8, rtol=0.05)
    assert np.abs(query[0] - query[1]).max() > 0.1 and np.abs(up[0] - up[1]).max() > 0.1


def test_rules_treat_scanned_parameters_as_unscanned_ones():
    fields = {"depth": 4, "heads": 2, "cross": True, "relative_position": "gated"}
    mesh = MeshShape(data=1, fsdp=2, expert=2, tensor=2).make()
    optimizer = Optimizer(AdamW(learning_rate=1.0, rules=DEFAULT_RULES))
    one, many = (
        paths(shapes_of(Transformer(**fields, stack=Stack(scan=scan, experts=EXPERTS))))
        for scan in (False, True)
    )
    compared = 0
    for path, leaf in one.items():
        name, _, rest = path.partition("/")
        if not name.startswith("block_"):
            continue
        twin = f"blocks/block_{int(name[-1]) % 2}/{rest}"
        assert optimizer.rule(path) == optimizer.rule(twin)
        want = partition(path, leaf.shape, mesh)
        assert tuple(partition(twin, many[twin].shape, mesh)) == (None, *want), path
        compared += 1
    assert compared > 80
    up = "blocks/block_1/experts/up/kernel"
    assert tuple(partition(up, (2, 4, 8, 16), mesh)) == (None, "expert", "fsdp", "tensor")


def test_packed_rows_route_real_tokens_only():
    """With segments the mask is of rows and columns; padding is still not routed."""
    stack = Stack(experts=Experts(count=2, every=1, capacity=0.5))
    model = TextEncoder(vocab_size=9, width=8, depth=1, heads=2, length=6, stack=stack)
    tokens, mask = np.full((1, 6), 3), np.arange(6)[None] < 4
    segments = np.array([[0, 0, 1, 1, 1, 1]])

    def run():
        params = model.init(jax.random.key(0), tokens, mask, None, segments)
        return model.apply(params, tokens, mask, None, segments, mutable=[AUXILIARY])[1]

    sown = jax.jit(run)()
    told = sown[AUXILIARY]["transformer"]["block_0"]["experts"]
    assert told["dropped"][0][1] == 4


@pytest.mark.parametrize(
    "fields, stack, message",
    [
        ({}, {"scan": True, "experts": Experts(count=2, every=2)}, "does not divide the 3 blocks"),
        ({}, {"experts": Experts(count=2, every=4)}, "a stack of 3 blocks would have no experts"),
        ({"shared_layers": True}, {"experts": EXPERTS}, "stack.experts.every=2: layers that share"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, stack, message):
    model = Transformer(depth=3, heads=2, stack=Stack(**stack), **fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), X, MASK)


def test_wrong_remat_names_the_choices():
    with pytest.raises(
        UserError, match=r"stack.remat='dot'; did you mean 'dots'\? valid: dots, fu"
    ):
        Stack(remat="dot")
