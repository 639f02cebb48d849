import jax
import numpy as np
import pytest

from taichu_jax.ops.patches import (
    centred,
    keep_some,
    patchify,
    standardised,
    uncentred,
    unpatchify,
)


def test_patches_are_in_reading_order():
    images = np.random.default_rng(0).uniform(size=(2, 6, 9, 3)).astype(np.float32)
    got = np.asarray(patchify(images, 3))
    assert got.shape == (2, 6, 27)
    for b in range(2):
        for row in range(2):
            for column in range(3):
                block = images[b, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
                np.testing.assert_array_equal(got[b, 3 * row + column], block.reshape(-1))
    np.testing.assert_array_equal(unpatchify(got, 3, rows=2), images)


def test_a_square_picture_needs_no_rows():
    images = np.random.default_rng(1).uniform(size=(1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(unpatchify(patchify(images, 2), 2), images)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="patch=4"):
        patchify(np.zeros((1, 8, 6, 3)), 4)
    with pytest.raises(ValueError, match="whole rows"):
        unpatchify(np.zeros((1, 6, 12)), 2, rows=4)


def test_standardised_takes_the_unbiased_variance():
    patches = np.random.default_rng(2).uniform(size=(2, 3, 5)).astype(np.float32)
    patches[0, 0] = 0.25  # a flat patch: no division by zero
    got, mean, deviation = standardised(patches)
    for b in range(2):
        for n in range(3):
            values = patches[b, n].astype(np.float64)
            middle = sum(values) / 5
            spread = np.sqrt(sum((values - middle) ** 2) / 4 + 1e-6)
            np.testing.assert_allclose(got[b, n], (values - middle) / spread, atol=1e-5)
            np.testing.assert_allclose(mean[b, n, 0], middle, rtol=1e-6)
            np.testing.assert_allclose(deviation[b, n, 0], spread, rtol=1e-5)
    np.testing.assert_allclose(got * deviation + mean, patches, atol=1e-6)


def test_centred_and_back():
    np.testing.assert_array_equal(centred(np.array([0.0, 0.5, 1.0])), [-1, 0, 1])
    np.testing.assert_array_equal(uncentred(np.array([-1.0, 0.0, 1.0])), [0, 0.5, 1])


def test_exactly_count_patches_stay_and_every_place_is_as_likely():
    rows, patches, count = 4000, 9, 4
    keep, masked = map(np.asarray, keep_some(jax.random.key(0), rows, patches, count))
    assert keep.shape == (rows, count) and masked.shape == (rows, patches)
    assert (masked.sum(1) == patches - count).all()
    for b in range(100):
        assert sorted(keep[b]) == list(np.flatnonzero(~masked[b]))
    share = (~masked).mean(0)
    bound = 4 * np.sqrt(count / patches * (1 - count / patches) / rows)
    assert np.abs(share - count / patches).max() < bound
    # Pictures draw independently: two of them agree on a place as often as chance says.
    p = count / patches
    together = (~masked[::2] & ~masked[1::2]).mean()
    assert abs(together - p**2) < 4 * np.sqrt(p**2 / rows)
