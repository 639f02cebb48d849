"""WavLM's position bias against loops over queries, keys and heads."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from taichu_jax.models.attention import Attention
from taichu_jax.models.relative_position import PositionGate, RelativePosition, distance_buckets
from taichu_jax.models.transformer import Transformer

HEADS, WIDTH, LENGTH = 2, 8, 12


def bucket(query, key, count, farthest):
    """T5's rule for one pair, with Python's own logarithm."""
    half = count // 2
    exact = half // 2
    distance = abs(key - query)
    if distance >= exact:
        share = math.log(distance / exact) / math.log(farthest / exact)
        distance = min(half - 1, exact + int(share * (half - exact) + 1e-12))
    return distance + (half if key > query else 0)


@pytest.mark.parametrize(("length", "count", "farthest"), [(12, 16, 10), (1000, 320, 800)])
def test_buckets_are_t5s(length, count, farthest):
    found = distance_buckets(length, count, farthest)
    for i in range(0, length, max(1, length // 13)):
        for j in range(length):
            assert found[i, j] == bucket(i, j, count, farthest), (i, j)
    assert found.max() == count - 1
    assert (found.diagonal() == 0).all()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@functools.cache
def outcome():
    x = jax.random.normal(jax.random.key(1), (2, LENGTH, WIDTH))
    table = RelativePosition(HEADS, buckets=16, farthest=10)
    params = table.init(jax.random.key(2), LENGTH)
    distances = table.apply(params, LENGTH)
    attention = Attention(HEADS)
    weights = attention.init(jax.random.key(3), x, x, None, distances)
    scale = jnp.array([0.7, -1.3])
    weights["params"]["position_gate"]["scale"] = scale
    y = attention.apply(weights, x, x, None, distances)
    as_arrays = functools.partial(jax.tree.map, np.asarray)
    return np.asarray(x), as_arrays(params["params"]), as_arrays(weights["params"]), np.asarray(y)


def test_attention_is_the_papers():
    x, params, weights, found = outcome()
    d = params["relative_position_embedding"]

    def dense(name, v):
        return v @ weights[name]["kernel"] + weights[name]["bias"]

    gates = weights["position_gate"]
    for b in range(len(x)):
        heads = []
        for h in range(HEADS):
            part = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
            mixed = np.zeros((LENGTH, WIDTH // HEADS))
            for i in range(LENGTH):
                raw = x[b, i, part] @ gates["gates"]["kernel"] + gates["gates"]["bias"]
                update, reset = sigmoid(raw)
                scores = []
                for j in range(LENGTH):
                    product = dense("query", x[b, i])[part] @ dense("key", x[b, j])[part]
                    own = d[bucket(i, j, 16, 10), h]
                    reduced = gates["scale"][h] * reset * own
                    bias = own + update * own + (1 - update) * reduced
                    scores.append(product / math.sqrt(WIDTH // HEADS) + bias)
                share = np.exp(scores) / np.exp(scores).sum()
                for j in range(LENGTH):
                    mixed[i] += share[j] * dense("value", x[b, j])[part]
            heads.append(mixed)
        expected = dense("out", np.concatenate(heads, -1))
        np.testing.assert_allclose(found[b], expected, rtol=1e-4, atol=1e-5)


def test_one_table_for_all_blocks_and_gates_for_each():
    x, mask = jnp.ones((1, 4, WIDTH)), jnp.ones((1, 4), bool)
    plain = Transformer(depth=2, heads=HEADS)
    gated = Transformer(depth=2, heads=HEADS, relative_position="gated")
    shapes = [jax.eval_shape(m.init, jax.random.key(0), x, mask)["params"] for m in (plain, gated)]
    assert shapes[1].pop("relative_position")["relative_position_embedding"].shape == (320, HEADS)
    for i in range(2):
        gate = shapes[1][f"block_{i}"]["attention"].pop("position_gate")
        assert gate["gates"]["kernel"].shape == (WIDTH // HEADS, 2)
        assert gate["scale"].shape == (HEADS,)
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    with pytest.raises(ValueError, match="valid: none, gated"):
        Transformer(depth=1, heads=1, relative_position="gate").init(jax.random.key(0), x, mask)


def test_gates_follow_the_names_that_decay_rules_know():
    assert issubclass(PositionGate, nn.Module)
    from taichu_jax.training.optim import AdamW, Optimizer

    rule = Optimizer(AdamW(learning_rate=1.0)).rule
    for path in ("relative_position/relative_position_embedding", "position_gate/scale"):
        assert rule(f"speech/transformer/{path}").decay == 0
    assert rule("speech/transformer/block_0/attention/position_gate/gates/kernel").decay == 1
