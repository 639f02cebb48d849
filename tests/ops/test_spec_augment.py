"""SpecAugment: the chance that a frame is covered in closed form, limits per row, rows apart."""

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.spec_augment import SpecAugment, stretches

ROWS = 6000


def covered(length, longest):
    """P(index is inside one stretch) by summing over all lengths and starts."""
    p = np.zeros(length)
    for t in range(longest + 1):
        starts = range(length - t) if t < length else [0]
        for start in starts:
            p[start : start + t] += 1 / (longest + 1) / len(starts)
    return p


def test_one_stretch_has_its_closed_form():
    lengths = jnp.array([12, 9, 3, 1, 0])
    longest = np.array([5, 5, 3, 1, 0])
    draw = jax.jit(lambda key, n, w: stretches(key, n, 12, count=1, longest=w))
    masks = draw(jax.random.key(0), jnp.repeat(lengths, ROWS), jnp.repeat(longest, ROWS))
    masks = np.asarray(masks).reshape(5, ROWS, 12)
    for own, n, w in zip(masks, lengths.tolist(), longest.tolist(), strict=True):
        expected = np.pad(covered(n, w), (0, 12 - n))
        deviation = np.sqrt(expected * (1 - expected) / ROWS)
        assert (np.abs(own.mean(0) - expected) <= 5 * deviation + 1e-9).all()
        sizes = own.sum(1)
        assert set(sizes.tolist()) == set(range(w + 1))
        counts = np.bincount(sizes, minlength=w + 1)
        assert np.abs(counts / ROWS - 1 / (w + 1)).max() < 0.03
        # One stretch: it begins at most once.
        assert (np.diff(own.astype(int), axis=1, prepend=0) == 1).sum(1).max() <= 1
    assert not np.array_equal(masks[0, 0], masks[0, 1]) or masks[0].std(0).max() > 0


def test_masks_whole_frames_and_bands_of_the_real_part():
    policy = SpecAugment(time_masks=2, time_width=6, time_share=0.25, band_masks=1, band_width=4)
    mel = jnp.ones((400, 20, 8))
    lengths = jnp.tile(jnp.array([20, 10, 3, 0]), 100)
    out = np.asarray(jax.jit(policy)(jax.random.key(1), mel, lengths))
    assert set(np.unique(out)) == {0.0, 1.0}
    frames, bands = (out == 0).all(2), (out == 0).all(1)
    assert (out == 0).sum() == (frames[:, :, None] | bands[:, None]).sum()
    assert bands.sum(1).max() == 4 and not bands[:, -1].any()
    per_row = frames.sum(1)
    for length, most in ((20, 2 * 5), (10, 2 * 2), (3, 0), (0, 0)):  # share of 0.25, two masks
        own = per_row[np.asarray(lengths) == length]
        assert own.max() == most if most < 5 else 6 < own.max() <= most
    assert not frames[np.arange(20) >= np.asarray(lengths)[:, None]].any()
    assert len({row.tobytes() for row in frames[::4]}) > 50  # every row draws its own


def test_nothing_is_masked_with_no_masks():
    mel = jnp.ones((2, 5, 4))
    none = SpecAugment(time_masks=0, band_masks=0)
    np.testing.assert_array_equal(none(jax.random.key(0), mel, jnp.array([5, 3])), mel)
