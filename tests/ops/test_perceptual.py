"""The distance of hidden states against loops."""

import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.perceptual import feature_distance

RNG = np.random.default_rng(0)


def test_distance_is_the_formula():
    layers = [RNG.normal(size=(2, n, d)) for n, d in ((3, 4), (5, 2))]
    others = [RNG.normal(size=x.shape) for x in layers]
    got = feature_distance(
        [jnp.asarray(x, jnp.float32) for x in layers], [jnp.asarray(x, jnp.float32) for x in others]
    )
    for b in range(2):
        means = []
        for x, y in zip(layers, others, strict=True):
            places = [
                sum((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2)
                for u, v in zip(x[b], y[b], strict=True)
            ]
            means.append(np.mean(places))
        np.testing.assert_allclose(got[b], np.mean(means), rtol=1e-5)
