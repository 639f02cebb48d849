import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.frames import stack_frames


@pytest.mark.parametrize("frames, stride", [(8, 4), (10, 4), (5, 1), (3, 5)])
def test_is_the_definition(frames, stride):
    """Token t is the frames t * stride ... in order, bands innermost; zeros from the length on."""
    rng = np.random.default_rng(0)
    bands, lengths = 3, np.array([0, 1, frames - 1, frames], np.int32)
    mel = rng.normal(size=(4, frames, bands)).astype(np.float32)
    tokens = int(np.ceil(frames / stride))
    want = np.zeros((4, tokens, stride * bands), np.float32)
    for b in range(4):
        for f in range(lengths[b]):
            start = f % stride * bands
            want[b, f // stride, start : start + bands] = mel[b, f]
    got = stack_frames(mel, lengths, stride)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)


def test_what_lies_beyond_the_length_is_never_read():
    mel = np.full((1, 6, 2), np.nan, np.float32)
    mel[:, :3] = 1.0
    got = np.asarray(stack_frames(mel, np.array([3]), 4))
    np.testing.assert_array_equal(got[0], [[1] * 6 + [0] * 2, [0] * 8])
