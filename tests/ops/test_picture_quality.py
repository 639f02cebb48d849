"""PSNR and SSIM against loops over windows and values computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.picture_quality import psnr, ssim

RNG = np.random.default_rng(0)


def reference(x, y):
    """SSIM of two pictures [H, W, C] by its formula at every place of the window."""
    window = np.array(
        [
            [np.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)]
            for i in range(11)
        ]
    )
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            for c in range(x.shape[2]):
                a = x[top : top + 11, left : left + 11, c]
                b = y[top : top + 11, left : left + 11, c]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a = (window * (a - mean_a) ** 2).sum()
                var_b = (window * (b - mean_b) ** 2).sum()
                both = (window * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + 1e-4)
                    * (2 * both + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )
    return np.mean(values)


def test_ssim_is_the_formula():
    x = RNG.uniform(size=(2, 13, 12, 3)).astype(np.float32)
    y = np.clip(x + RNG.normal(scale=0.2, size=x.shape), 0, 1).astype(np.float32)
    for got, a, b in zip(ssim(jnp.asarray(x), jnp.asarray(y)), x, y, strict=True):
        np.testing.assert_allclose(got, reference(a, b), atol=1e-5)


def test_ssim_of_flat_and_of_equal_pictures():
    flat = lambda value: jnp.full((1, 11, 11, 1), value)  # noqa: E731
    # 2 * 0.2 * 0.6 + 0.0001 over 0.04 + 0.36 + 0.0001: variances are 0
    np.testing.assert_allclose(ssim(flat(0.2), flat(0.6)), 0.2401 / 0.4001, rtol=1e-4)
    x = jnp.asarray(RNG.uniform(size=(1, 12, 12, 3)), jnp.float32)
    np.testing.assert_allclose(ssim(x, x), 1.0, atol=1e-5)
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(x[:, :10], x[:, :10])


def test_psnr_by_hand():
    x = jnp.zeros((3, 4, 4, 3))
    y = x.at[1].set(0.1).at[2, 0, 0, 0].set(1.0)
    # equal: the limit; 0.01 everywhere: 20 dB; 1 in one of 48 values: 10 log10 48
    np.testing.assert_allclose(psnr(x, y), [100.0, 20.0, 10 * np.log10(48)], rtol=1e-5)
