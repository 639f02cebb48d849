"""Random segments: where they begin, and what is in them."""

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.segments import random_starts, segment


def test_starts_are_uniform_over_the_places_inside():
    lengths = jnp.repeat(jnp.array([10, 7, 4, 2, 0]), 6000)
    starts = np.asarray(jax.jit(random_starts, static_argnums=2)(jax.random.key(0), lengths, 4))
    for part, length in zip(starts.reshape(5, -1), (10, 7, 4, 2, 0), strict=True):
        places = max(length - 4, 0) + 1
        share = np.bincount(part, minlength=places) / len(part)
        assert len(share) == places
        assert np.abs(share - 1 / places).max() <= 5 * np.sqrt(1 / places / len(part))


def test_segments_are_slices_and_what_lies_beyond():
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
    start = np.array([0, 4, -1], np.int32)
    out = np.asarray(jax.jit(segment, static_argnums=(2, 3))(x, start, 3, -7.0))
    np.testing.assert_array_equal(out[0], x[0, :3])
    np.testing.assert_array_equal(out[1], [x[1, 4], x[1, 5], [-7, -7]])
    np.testing.assert_array_equal(out[2], [[-7, -7], x[2, 0], x[2, 1]])
    flat = np.asarray(segment(jnp.asarray(x[..., 0]), jnp.asarray(start), 3))
    np.testing.assert_array_equal(flat[1], [x[1, 4, 0], x[1, 5, 0], 0])
