"""XLNet: its scores against their formula, packed rows, scanned stacks; whole models: tests/parity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.transformer import Stack
from taichu_jax.models.transformer_xl import Places, PositionScores
from taichu_jax.models.xlnet import XLNet

DRAW = np.random.default_rng(0)
HEADS, SIZE = 2, 4
WIDTH = HEADS * SIZE


def test_scores_are_the_formula():
    """Every pair of a row and what it sees, rows in any order and some of them at one place."""
    rows = np.array([[3, 0, 5, 3], [1, 1, 2, 4]])
    seen = 6
    differs = DRAW.integers(0, 2, (2, 4, seen)).astype(bool)
    query = DRAW.normal(size=(2, 4, HEADS, SIZE)).astype(np.float32)
    places = Places(rows=jnp.array(rows), differs=jnp.array(differs))
    model = PositionScores()
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), query, places, seen))["params"]
    params = {k: DRAW.normal(size=v.shape).astype(np.float32) for k, v in shapes.items()}
    moved, scores = jax.jit(lambda params: model.apply({"params": params}, query, places, seen))(
        params
    )
    np.testing.assert_allclose(moved, query + params["content_bias"], rtol=1e-6)
    matrix = params["position_kernel"].reshape(WIDTH, HEADS, SIZE)
    rates = [10_000 ** (-2 * k / WIDTH) for k in range(WIDTH // 2)]
    for b, n, h, j in np.ndindex(2, 4, HEADS, seen):
        distance = rows[b, n] - j
        waves = [np.sin(distance * r) for r in rates] + [np.cos(distance * r) for r in rates]
        q = query[b, n, h]
        kind = params["segment_embedding"][int(differs[b, n, j]), h]
        expected = (q + params["position_bias"][h]) @ (np.array(waves) @ matrix[:, h])
        expected += (q + params["segment_bias"][h]) @ kind
        np.testing.assert_allclose(scores[b, h, n, j], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def model():
    module = XLNet(vocab_size=20, width=WIDTH, depth=2, heads=HEADS, segments=True)
    tokens = np.ones((1, 3), np.int32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, tokens > 0))["params"]
    draw = lambda s: 0.5 * DRAW.normal(size=s.shape).astype(np.float32)  # noqa: E731
    return module, jax.tree.map(lambda s: jnp.asarray(draw(s)), shapes)


def test_packed_rows_are_separate_rows(model):
    module, params = model
    first, second = DRAW.integers(6, 20, 5), DRAW.integers(6, 20, 3)
    rows = np.zeros((3, 8), np.int32)
    rows[0], rows[1, :5], rows[2, :3] = [*first, *second], first, second
    segments = np.array([[1] * 5 + [2] * 3, [1] * 5 + [0] * 3, [1] * 3 + [0] * 5])
    states = jax.jit(
        lambda tokens: module.apply({"params": params}, tokens, tokens > 0, segments=segments)
    )(rows).tokens
    np.testing.assert_allclose(states[0, :5], states[1, :5], atol=1e-5)
    np.testing.assert_allclose(states[0, 5:], states[2, :3], atol=1e-5)
    assert np.abs(states[0, :3] - states[2, :3]).max() > 0.1


def test_a_scanned_stack_is_the_same(model):
    """Both streams, and then a text in two pieces."""
    module, params = model
    scanned = module.clone(stack=Stack(scan=True, remat="full"))
    blocks = [params["transformer"][f"block_{i}"] for i in range(2)]
    stacked = params | {"transformer": {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *blocks)}}
    tokens = DRAW.integers(6, 20, (2, 6)).astype(np.int32)
    types = DRAW.integers(0, 2, (2, 6)).astype(np.int32)
    see = DRAW.uniform(size=(2, 6, 6)) < 0.5
    targets = np.array([[2, 5], [0, 1]])

    def run(module, params):
        def call(*args, method):
            return module.apply({"params": params}, *args, types, method=method)

        there = jnp.ones(tokens.shape, bool)
        streams = call(tokens, there, see, targets, method="two_streams")
        _, memory = call(tokens, there, module.start(2, 3), method="further")
        return streams, call(tokens, there, memory, method="further")[0]

    a, b = jax.jit(lambda x, y: (run(module, x), run(scanned, y)))(params, stacked)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), a, b)
    assert np.abs(a[1].tokens - a[0][0].tokens).max() > 0.1


def test_what_does_not_fit_is_refused(model):
    module, params = model
    tokens = np.ones((1, 3), np.int32)
    plain = module.clone(segments=False)
    with pytest.raises(ValueError, match="knows no types of tokens: segments=False"):
        jax.eval_shape(lambda: plain.apply({"params": params}, tokens, tokens > 0, types=tokens))
    wrong = module.clone(style=module.style.__class__(first_norm=True))
    with pytest.raises(ValueError, match=r"style\.first_norm=True"):
        jax.eval_shape(lambda: wrong.init(jax.random.key(0), tokens, tokens > 0))
