"""From symbols to frames and back, against NumPy."""

import jax
import numpy as np
import pytest

from taichu_jax.ops.durations import averaged, frames_of, lengthened, symbol_of_frame

DURATIONS = np.array([[2, 0, 3, 1], [1, 1, 0, 0], [0, 0, 0, 0], [4, 4, 4, 4]])
FRAMES = 9


def test_states_are_repeated_as_by_numpy():
    states = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    found = jax.jit(lengthened, static_argnums=2)(states, DURATIONS, FRAMES)
    symbol = jax.jit(symbol_of_frame, static_argnums=1)(DURATIONS, FRAMES)
    for row, durations in enumerate(DURATIONS):
        expected = np.repeat(states[row], durations, axis=0)[:FRAMES]
        np.testing.assert_array_equal(found[row, : len(expected)], expected)
        assert (np.asarray(found[row, len(expected) :]) == 0).all()
        of_frame = np.repeat(np.arange(4), durations)[:FRAMES]
        np.testing.assert_array_equal(symbol[row, : len(of_frame)], of_frame)
        assert (np.asarray(symbol[row, len(of_frame) :]) == 4).all()


def test_values_are_averaged_over_a_symbols_frames_that_count():
    rng = np.random.default_rng(1)
    values, where = rng.normal(size=(4, FRAMES)), rng.random((4, FRAMES)) < 0.5
    values[~where] = np.nan  # never looked at
    found, any_there = map(np.asarray, jax.jit(averaged)(values, DURATIONS, where))
    everything = np.asarray(jax.jit(averaged)(np.nan_to_num(values), DURATIONS)[0])
    for row, durations in enumerate(DURATIONS):
        start = 0
        for n, duration in enumerate(durations):
            frames = range(start, min(start + duration, FRAMES))
            own = [values[row, t] for t in frames if where[row, t]]
            assert any_there[row, n] == bool(own)
            assert found[row, n] == pytest.approx(np.mean(own) if own else 0.0, abs=1e-6)
            every = [np.nan_to_num(values[row, t]) for t in frames]
            assert everything[row, n] == pytest.approx(np.mean(every) if every else 0.0, abs=1e-6)
            start += duration


def test_durations_are_whole_and_never_nothing():
    frames = np.array([[0.0, 0.4, 2.6, 7.0, 1e9, 5.0]])
    mask = np.array([[True] * 5 + [False]])
    compute = jax.jit(frames_of)
    found = compute(np.log1p(frames), mask, 1.0, 50)
    np.testing.assert_array_equal(found, [[1, 1, 3, 7, 50, 0]])
    found = compute(np.log1p(frames), mask, 2.0, 50)
    np.testing.assert_array_equal(found, [[1, 1, 1, 4, 50, 0]])  # 3.5 is rounded to the even one
