"""Convolutions and transposed convolutions against loops over outputs and taps."""

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.convolution import Convolution, UpSampling

X = np.random.default_rng(0).normal(size=(2, 11, 4)).astype(np.float32)


def run(module, x=X):
    """(output, kernel, length, bias) with parameters that are not the initial ones."""

    @jax.jit
    def both():
        params = module.init(jax.random.key(0), x)["params"]
        params = {
            k: v + 0.3 * jax.random.normal(jax.random.key(1), v.shape) for k, v in params.items()
        }
        return module.apply({"params": params}, x), params

    y, params = jax.tree.map(np.asarray, both())
    kernel = params["kernel"] / np.sqrt(np.square(params["kernel"]).sum((0, 1))) * params["scale"]
    return y, kernel, params["bias"]


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "groups", "before"),
    [
        (3, 1, 1, 1, None),
        (5, 1, 3, 1, None),
        (3, 1, 2, 2, 4),
        (5, 3, 1, 1, None),
        (41, 4, 1, 2, None),
        (8, 4, 1, 1, 4),
        (1, 1, 1, 1, None),
        (2, 3, 1, 1, 0),
    ],
)
def test_convolution_is_a_sum_over_taps(size, stride, dilation, groups, before):
    module = Convolution(6, size, stride, dilation, groups, before)
    y, kernel, bias = run(module)
    before = (size - 1) * dilation // 2 if before is None else before
    assert y.shape == (2, -(-11 // stride), 6)
    inside, outside = 4 // groups, 6 // groups
    for n in range(y.shape[1]):
        for f in range(6):
            g = f // outside
            expected = bias[f]
            for i in range(size):
                t = n * stride + i * dilation - before
                if 0 <= t < 11:
                    expected = expected + X[:, t, g * inside : (g + 1) * inside] @ kernel[i, :, f]
            np.testing.assert_allclose(y[:, n, f], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rate", "size", "cut"), [(4, 8, None), (5, 15, None), (2, 4, 0), (3, 3, None), (5, 5, None)]
)
def test_up_sampling_is_a_transposed_convolution(rate, size, cut):
    y, kernel, bias = run(UpSampling(3, rate, size, cut))
    cut = (size - rate) // 2 if cut is None else cut
    assert y.shape == (2, 11 * rate, 3)
    for n in range(11 * rate):
        expected = np.tile(bias, (2, 1))
        for t in range(11):
            if 0 <= n + cut - t * rate < size:
                expected = expected + X[:, t] @ kernel[n + cut - t * rate]
        np.testing.assert_allclose(y[:, n], expected, rtol=1e-4, atol=1e-5)


def test_normalised_weights_start_as_plain_ones():
    params = jax.jit(Convolution(5, 3).init)(jax.random.key(0), X)["params"]
    np.testing.assert_allclose(params["scale"], np.sqrt(np.square(params["kernel"]).sum((0, 1))))


def test_up_sampling_starts_with_the_variance_of_its_inputs():
    x = np.random.default_rng(1).normal(size=(8, 40, 64)).astype(np.float32)
    module = UpSampling(64, 4, 8)
    y = jax.jit(lambda: module.init_with_output(jax.random.key(0), x)[0])()
    assert 0.85 < np.asarray(y)[:, 8:-8].std() < 1.15


def test_what_does_not_divide_is_named():
    with pytest.raises(UserError, match="groups=3: must divide the 4 channels"):
        Convolution(6, 3, groups=3).init(jax.random.key(0), X)
    for size in (6, 10):
        with pytest.raises(UserError, match=f"size={size}: must be a multiple of the rate"):
            UpSampling(6, 5, size).init(jax.random.key(0), X)
