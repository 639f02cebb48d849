"""The adversary's losses against loops, and the norm at the last kernel against that kernel."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.ops.gan import adaptive_weight, example_mean, hinge, last_layer_norm

RNG = np.random.default_rng(0)


def test_hinge_is_the_formula():
    real, fake = RNG.normal(scale=2.0, size=(2, 3, 4, 4)).astype(np.float32)
    for b, got in enumerate(hinge(jnp.asarray(real), jnp.asarray(fake))):
        right = [max(0, 1 - s) for s in real[b].reshape(-1)]
        wrong = [max(0, 1 + s) for s in fake[b].reshape(-1)]
        np.testing.assert_allclose(got, (np.mean(right) + np.mean(wrong)) / 2, rtol=1e-5)
    np.testing.assert_allclose(example_mean(jnp.asarray(real)), real.mean((1, 2)), rtol=1e-5)


def test_norm_at_the_last_kernel_is_that_of_its_gradient():
    layer = nn.Conv(3, (3, 3))
    features = jnp.asarray(RNG.normal(size=(2, 5, 6, 4)), jnp.float32)
    params = layer.init(jax.random.key(0), features)["params"]

    def at_output(pixels):
        return (jnp.sin(pixels) * jnp.arange(3)).sum()

    def at_kernel(kernel):
        return at_output(layer.apply({"params": params | {"kernel": kernel}}, features))

    pixels = layer.apply({"params": params}, features)
    got = jax.jit(last_layer_norm, static_argnums=2)(features, jax.grad(at_output)(pixels), 3)
    np.testing.assert_allclose(
        got, np.linalg.norm(jax.grad(at_kernel)(params["kernel"])), rtol=1e-5
    )


def test_adaptive_weight_is_a_bounded_constant():
    weight, slope = jax.value_and_grad(adaptive_weight)(3.0, 1.5, 0.5)
    assert weight == 1.5 and slope == 0
    assert adaptive_weight(3.0, 0.0, 1e-6) == 1e4
