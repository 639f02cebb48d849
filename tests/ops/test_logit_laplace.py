"""The density against its formula and its integral."""

import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.logit_laplace import expected, negative_log_density, squeezed, unsqueezed


def test_density_is_the_formula():
    rng = np.random.default_rng(0)
    images, location, log_scale = rng.uniform(size=5), rng.normal(size=5), rng.normal(size=5)
    images[:2] = 0.0, 1.0
    got = negative_log_density(
        *(jnp.asarray(a, jnp.float32) for a in (images, location, log_scale))
    )
    for i in range(5):
        x, b = 0.8 * images[i] + 0.1, np.exp(log_scale[i])
        density = np.exp(-abs(np.log(x / (1 - x)) - location[i]) / b) / (2 * b * x * (1 - x))
        np.testing.assert_allclose(got[i], -np.log(density), rtol=1e-4, atol=1e-5)


def test_density_sums_to_one_over_the_open_interval():
    # Over all x in (0, 1), squeezed or not; in terms of its logit, so that both ends are covered.
    logits = np.linspace(-40, 40, 40_001)
    x = 1 / (1 + np.exp(-logits))
    images = jnp.asarray((x - 0.1) / 0.8, jnp.float32)
    inside = np.abs(logits) < 12  # where float32 still tells x from 0 and 1
    density = np.exp(-np.asarray(negative_log_density(images, 0.7 + 0 * images, 0.3 + 0 * images)))
    mass = (density * x * (1 - x))[inside].sum() * (logits[1] - logits[0])
    outside = np.exp(-(12 - 0.7) / np.exp(0.3)) / 2 + np.exp(-(12 + 0.7) / np.exp(0.3)) / 2
    np.testing.assert_allclose(mass + outside, 1.0, atol=2e-3)


def test_the_shown_picture_is_the_squeezed_one_again():
    images = jnp.linspace(0.0, 1.0, 7)
    np.testing.assert_allclose(unsqueezed(squeezed(images)), images, atol=1e-6)
    x = squeezed(images)
    np.testing.assert_allclose(expected(jnp.log(x / (1 - x))), images, atol=1e-6)
    assert expected(jnp.array([-9.0, 9.0])).tolist() == [0.0, 1.0]
