"""The device's spectrogram is the data's."""

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.data import audio
from taichu_jax.ops.log_mel import SILENCE, log_mel

SAMPLES = 3210
LENGTHS = np.array([3210, 1700, 0], np.int32)


def waves():
    time = np.arange(SAMPLES) / audio.RATE
    rng = np.random.default_rng(0)
    x = 0.4 * np.sin(2 * np.pi * (150 + 3000 * time) * time) + 0.02 * rng.normal(size=(3, SAMPLES))
    x[np.arange(SAMPLES) >= LENGTHS[:, None]] = np.nan
    return x.astype(np.float32)


def test_it_equals_the_data_s_and_knows_no_padding():
    ours = np.asarray(jax.jit(log_mel, static_argnums=2)(waves(), LENGTHS, 80))
    assert ours.shape == (3, 1 + SAMPLES // audio.HOP, 80)
    for row, wave, length in zip(ours, waves(), LENGTHS, strict=True):
        frames = audio.frame_count(length)
        if length:
            expected = audio.log_mel(wave[:length], 80)
            np.testing.assert_allclose(row[:frames], expected, atol=1e-4)
        np.testing.assert_allclose(row[frames + 1 :], SILENCE, atol=1e-6)


def test_gradients_are_those_of_differences():
    wave = jnp.asarray(waves()[:1, :400])
    direction = jnp.asarray(np.random.default_rng(1).normal(size=wave.shape), jnp.float32)

    @jax.jit
    def along(t):
        return log_mel(wave + t * direction, jnp.array([400]), 8).sum()

    slope = (along(1e-3) - along(-1e-3)) / 2e-3
    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), slope, rtol=1e-2)
