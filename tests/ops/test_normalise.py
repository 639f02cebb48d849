import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.normalise import over_features, over_time, unit


def test_over_time_sees_real_steps_only():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (3, 7, 4)).astype(np.float32)
    lengths = [7, 3, 0]
    mask = np.arange(7) < np.array(lengths)[:, None]
    y = np.asarray(over_time(jnp.asarray(x), jnp.asarray(mask)))
    for b, n in enumerate(lengths):
        for d in range(4):
            if n:
                column = x[b, :n, d]
                expected = (column - column.mean()) / np.sqrt(column.var() + 1e-5)
                np.testing.assert_allclose(y[b, :n, d], expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(y).all()


def test_over_features():
    x = np.random.default_rng(0).normal(2.0, 3.0, (3, 7)).astype(np.float32)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(over_features(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def test_unit_and_its_gradient_at_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(x), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(x)).all()
