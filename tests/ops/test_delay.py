"""The delay pattern against loops over tokens and stages, and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.delay import delay, step_count, undelay

NOTHING, END = 99, 50
LENGTHS = np.array([0, 1, 3, 5])


def example(stages):
    return np.random.default_rng(stages).integers(0, 50, (4, 5, stages))


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("end", [None, END])
def test_is_the_pattern(stages, end):
    codes = example(stages)
    ids, real = delay(jnp.asarray(codes), jnp.asarray(LENGTHS), nothing=NOTHING, end=end)
    steps = 5 + stages - 1 + (end is not None)
    expected = np.full((4, steps, stages), NOTHING)
    for b, length in enumerate(LENGTHS):
        for s in range(stages):
            for t in range(length):
                expected[b, t + s, s] = codes[b, t, s]
        if end is not None:
            expected[b, length, 0] = end
    assert step_count(5, stages, end is not None) == steps
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(real, expected != NOTHING)


@pytest.mark.parametrize("stages", [1, 3])
def test_there_and_back(stages):
    codes = example(stages)
    ids, _ = delay(jnp.asarray(codes), jnp.asarray(LENGTHS), nothing=NOTHING, end=END)
    back, lengths = undelay(ids, END)
    np.testing.assert_array_equal(lengths, LENGTHS)
    real = np.arange(5) < LENGTHS[:, None]
    np.testing.assert_array_equal(back, np.where(real[..., None], codes, 0))

    whole, real = delay(jnp.asarray(codes), None, nothing=NOTHING)
    np.testing.assert_array_equal(undelay(whole)[0], codes)
    assert real.sum() == codes.size and (undelay(whole)[1] == 5).all()


def test_what_is_written_after_the_first_end_is_not_read():
    ids = np.full((1, 8, 3), 7)
    ids[0, [2, 4], 0] = END
    codes, lengths = undelay(jnp.asarray(ids), END)
    assert lengths == 2 and (codes[0, :2] == 7).all() and not codes[0, 2:].any()
    ids[0, :, 0] = 7  # and one that never comes
    assert undelay(jnp.asarray(ids), END)[1] == 5
