"""Two directions against loops over time; what each half may see; the head of a slice."""

import jax
import numpy as np
import pytest

from taichu_jax.models.bidirectional import BidirectionalEncoder, SliceHead, reverse_within
from tests.models.test_recurrent import gru, lstm

LENGTHS = np.array([8, 5, 0], np.int32)
MEL = np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32)


def test_reverse_within_the_length():
    x = np.arange(15, dtype=np.float32).reshape(3, 5, 1)
    got = np.asarray(reverse_within(x, np.array([5, 3, 0])))[..., 0]
    np.testing.assert_array_equal(got, [[4, 3, 2, 1, 0], [7, 6, 5, 8, 9], [10, 11, 12, 13, 14]])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_states_are_the_recurrences_of_both_directions(cell):
    model = BidirectionalEncoder(width=4, depth=2, cell=cell)
    params = jax.jit(model.init)(jax.random.key(0), MEL, LENGTHS)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    spoiled = np.where(np.arange(8)[:, None] < LENGTHS[:, None, None], MEL, np.nan)
    encoded = jax.jit(model.apply)(params, spoiled, LENGTHS)
    assert encoded.rate == 100.0 and len(encoded.layers) == 3
    p = jax.tree.map(np.asarray, params["params"])
    step = {"gru": gru, "lstm": lstm}[cell]
    for b, n in enumerate(LENGTHS):
        start = MEL[b, :n] @ p["projection"]["kernel"] + p["projection"]["bias"]
        forward, backward = start, start[::-1]
        for i in range(2):
            forward = step(forward, p[f"forward_{i}"], 4).reshape(n, 4)
            backward = step(backward, p[f"backward_{i}"], 4).reshape(n, 4)
            both = np.concatenate([forward, backward[::-1]], axis=-1)
            np.testing.assert_allclose(encoded.layers[i + 1][b, :n], both, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(encoded.tokens[b, n:], 0)


def test_each_half_sees_its_own_side():
    model = BidirectionalEncoder(width=4, depth=2)
    params = jax.jit(model.init)(jax.random.key(0), MEL, LENGTHS)
    other = MEL.copy()
    other[:, 3] += 2.0
    run = jax.jit(model.apply)
    moved = np.abs(run(params, MEL, LENGTHS).tokens - run(params, other, LENGTHS).tokens)[:2] > 1e-6
    steps = np.arange(8)
    for b, n in enumerate(LENGTHS[:2]):
        np.testing.assert_array_equal(moved[b, :, :4].any(-1), (steps >= 3) & (steps < n))
        np.testing.assert_array_equal(moved[b, :, 4:].any(-1), steps <= 3)


def test_head_has_weights_of_its_own_for_every_place():
    model = SliceHead(frames=3, bands=2, hidden=5)
    x = np.random.default_rng(2).normal(size=(2, 4, 6)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), x)
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)
    p = jax.tree.map(np.asarray, params["params"])
    got = jax.jit(model.apply)(params, x)
    assert got.shape == (2, 4, 3, 2)
    for i in range(3):
        hidden = np.maximum(x @ p["up"]["kernel"][i] + p["up"]["bias"][i], 0)
        expected = hidden @ p["down"]["kernel"][i] + p["down"]["bias"][i]
        np.testing.assert_allclose(got[:, :, i], expected, rtol=1e-4, atol=1e-5)
