import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.negatives import sample_others


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
