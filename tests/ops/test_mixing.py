"""Mixtures against a loop over samples given the same draws, and their exact statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.mixing import mix_utterances

SIZE = 60


@functools.cache
def mixer(probability=0.2, decibels=(-5.0, 5.0), noise=0.1, noise_decibels=(-5.0, 20.0)):
    settings = {"probability": probability, "decibels": decibels}
    settings |= {"noise": noise, "noise_decibels": noise_decibels}
    return jax.jit(lambda key, audio, lengths: mix_utterances(key, audio, lengths, **settings))


def utterances(rows, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SIZE // 3, SIZE + 1, rows)
    audio = rng.normal(size=(rows, SIZE)) * np.exp(rng.normal(size=(rows, 1)))
    return (audio * (np.arange(SIZE) < lengths[:, None])).astype(np.float32), lengths


def test_a_stretch_of_one_other_utterance_is_added_at_one_energy():
    """With r fixed to 3 dB everything but the places follows from the mixture itself."""
    audio, lengths = utterances(64)
    mixed, added = map(np.asarray, mixer(1.0, (3.0, 3.0), 0.0)(jax.random.key(0), audio, lengths))
    difference, starts, others = mixed - audio, set(), set()
    for i, n in enumerate(lengths):
        times = np.flatnonzero(added[i])
        assert 1 <= len(times) <= n // 2 and times[-1] < n
        assert (np.diff(times) == 1).all()
        assert not difference[i, ~added[i]].any()
        starts.add(times[0])
        matches = []
        for j, m in enumerate(lengths):
            energy, other = (np.square(audio[k, : lengths[k]]).mean() for k in (i, j))
            scale = np.sqrt(energy / (10**0.3 * other))
            for s in range(m - len(times) + 1):
                if np.allclose(
                    difference[i, times], scale * audio[j, s : s + len(times)], atol=1e-4, rtol=1e-4
                ):
                    matches.append(j)
        assert matches, "what was added is no stretch of any utterance at this energy"
        if len(times) > 2:
            assert i not in matches
            others.update(matches)
    assert len(starts) > 15 and len(others) > 25


def test_noise_has_its_own_ratio():
    rows, size = 40, 4000
    audio = np.random.default_rng(1).normal(size=(rows, size)).astype(np.float32) * 3
    lengths = np.full(rows, size)
    mixed, added = mixer(1.0, (0.0, 0.0), 1.0, (10.0, 10.0))(jax.random.key(3), audio, lengths)
    for i in range(rows):
        heard = (np.asarray(mixed) - audio)[i][np.asarray(added)[i]]
        if len(heard) > 500:
            expected = np.square(audio[i]).mean() / 10
            assert np.square(heard).mean() == pytest.approx(expected, rel=0.3)


def test_statistics_are_the_papers():
    rows, size = 4000, 40
    audio = jnp.ones((rows, size))
    lengths = jnp.full(rows, size)
    mixed, added = mixer()(jax.random.key(5), audio, lengths)
    added, difference = np.asarray(added), np.asarray(mixed) - 1
    chosen = added.any(1)
    assert chosen.mean() == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / rows))
    stretch = added[chosen].sum(1)
    assert (stretch.min(), stretch.max()) == (1, size // 2)
    counts = np.bincount(stretch, minlength=21)[1:]
    assert abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())
    # Utterances here are all 1, so a stretch of another one is constant, and its level tells r.
    level = np.array([d[a] for d, a in zip(difference[chosen], added[chosen], strict=True)], object)
    speech = [x[0] for x in level if len(x) > 1 and np.ptp(x) < 1e-6]
    several = sum(len(x) > 1 for x in level)
    assert 1 - len(speech) / several == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / several))
    ratio = -20 * np.log10(speech)
    assert -5 <= ratio.min() < -4.5 and 4.5 < ratio.max() <= 5
    assert ratio.mean() == pytest.approx(0, abs=4 * 10 / np.sqrt(12 * len(ratio)))


def test_short_silent_and_lonely_utterances():
    audio, lengths = utterances(4)
    mix = mixer(1.0, (0.0, 0.0), 0.0)
    short = np.array([0, 1, 2, 30])
    mixed, added = mix(jax.random.key(0), audio, short)
    assert np.isfinite(mixed).all()
    assert not added[:2].any() and added[2].sum() <= 1
    silent, added = mix(jax.random.key(0), np.zeros_like(audio), lengths)
    assert not silent.any() and added.any()
    mixed, added = mix(jax.random.key(0), audio[:1], lengths[:1])
    np.testing.assert_array_equal(mixed, audio[:1])
    assert not added.any()
