import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.negatives import sample_in_groups, sample_others


def test_uniform_over_the_other_chosen_positions():
    chosen = np.zeros((4, 9), bool)
    chosen[0, [1, 4, 5, 8]] = True
    chosen[1, [0, 7]] = True
    chosen[2, 3] = True
    count = 3000
    others, usable = jax.jit(lambda k: sample_others(k, jnp.asarray(chosen), count))(
        jax.random.key(0)
    )
    assert others.shape == (4, 9, count)
    expected = chosen.copy()
    expected[2] = False  # one alone has no other
    np.testing.assert_array_equal(usable, expected)
    for b, n in zip(*np.nonzero(expected), strict=True):
        rest = [m for m in np.flatnonzero(chosen[b]) if m != n]
        drawn = np.bincount(others[b, n], minlength=9)
        assert drawn[rest].sum() == count
        p = 1 / len(rest)
        assert (np.abs(drawn[rest] / count - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-9).all()
    assert (np.asarray(others) >= 0).all() and (np.asarray(others) < 9).all()


def test_uniform_over_the_others_of_the_group():
    chosen = np.zeros((5, 4), bool)
    chosen[0, [0, 2]] = True
    chosen[1, [1, 2, 3]] = True
    chosen[2, 3] = True
    chosen[3, [0, 3]] = True
    groups, count = np.array([7, 2, 9, 7, 2]), 3000  # row 2 has one alone, row 4 none
    others, usable = jax.jit(lambda k: sample_in_groups(k, chosen, jnp.asarray(groups), count))(
        jax.random.key(0)
    )
    assert others.shape == (5, 4, count)
    expected = chosen.copy()
    expected[2] = False
    np.testing.assert_array_equal(usable, expected)
    for b, n in zip(*np.nonzero(expected), strict=True):
        rest = [
            4 * r + m
            for r, m in zip(*np.nonzero(chosen), strict=True)
            if groups[r] == groups[b] and (r, m) != (b, n)
        ]
        drawn = np.bincount(others[b, n], minlength=20)
        assert drawn[rest].sum() == count
        p = 1 / len(rest)
        assert (np.abs(drawn[rest] / count - p) < 5 * np.sqrt(p * (1 - p) / count) + 1e-9).all()
    assert (np.asarray(others) >= 0).all() and (np.asarray(others) < 20).all()
