"""Distortions of speech: what each does to a known signal, and what all of them keep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops import distortions
from taichu_jax.ops.distortions import Distortions

ROWS, SAMPLES = 64, 3200
LENGTHS = np.where(np.arange(ROWS) % 2, SAMPLES, 2000).astype(np.int32)
LENGTHS[0] = 0
REAL = np.arange(SAMPLES) < LENGTHS[:, None]
AUDIO = (np.random.default_rng(0).normal(size=(ROWS, SAMPLES)) * REAL).astype(np.float32)
NONE = dict.fromkeys(("reverberation", "overlap", "noise", "clipping", "gaps", "stop_band"), 0.0)
KEY = jax.random.key(3)


def energy(x):
    return np.square(np.asarray(x, np.float64)).sum(-1)


@pytest.mark.parametrize("name", NONE)
def test_each_changes_its_share_of_the_rows_and_never_what_is_behind_them(name):
    spoiled = np.where(REAL, AUDIO, np.nan)
    distort = jax.jit(Distortions(**(NONE | {name: 0.5})))
    result = np.asarray(distort(spoiled, LENGTHS, 5))
    assert np.isfinite(result).all() and (result[~REAL] == 0).all()
    changed = (np.abs(result - AUDIO) > 1e-4).any(-1)
    assert not changed[0] and 18 <= changed.sum() <= 45  # 63 rows at one half: 4 deviations
    assert (np.asarray(distort(AUDIO, LENGTHS, 5)) == result).all()
    assert (np.asarray(distort(AUDIO, LENGTHS, 6)) != result).any()


def test_none_is_the_identity_and_the_type_stays():
    result = Distortions(**NONE)(jnp.asarray(AUDIO, jnp.bfloat16), LENGTHS, 0)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_array_equal(result, jnp.asarray(AUDIO, jnp.bfloat16))
    again = dataclasses.replace(Distortions(), seed=1)(AUDIO, LENGTHS, 0)
    assert (np.asarray(again) != np.asarray(Distortions()(AUDIO, LENGTHS, 0))).any()


def test_mixing_has_the_ratio_and_the_energy():
    rng = np.random.default_rng(1)
    noise, ratio = rng.normal(size=AUDIO.shape).astype(np.float32), np.full((ROWS, 1), 5.0)
    result = np.asarray(distortions.mixed(AUDIO, noise, ratio))
    np.testing.assert_allclose(energy(result), energy(AUDIO), rtol=1e-4)
    for b in range(1, ROWS):  # least squares finds both parts
        parts = np.stack([AUDIO[b], noise[b]], axis=1)
        own, added = np.linalg.lstsq(parts, result[b], rcond=None)[0]
        found = 10 * np.log10((own**2 * energy(AUDIO[b])) / (added**2 * energy(noise[b])))
        np.testing.assert_allclose(found, 5, atol=1e-2)
    np.testing.assert_array_equal(distortions.mixed(AUDIO, 0 * noise, ratio), AUDIO)


def test_noise_ratios_are_the_configured_ones():
    result = np.asarray(distortions.add_noise(KEY, AUDIO, LENGTHS), np.float64)
    found = []
    for b in range(1, ROWS):
        gain = (result[b] @ AUDIO[b]) / energy(AUDIO[b])
        found.append(
            10 * np.log10(gain**2 * energy(AUDIO[b]) / energy(result[b] - gain * AUDIO[b]))
        )
    nearest = np.array(distortions.NOISE_RATIOS)[
        np.abs(np.subtract.outer(found, distortions.NOISE_RATIOS)).argmin(-1)
    ]
    np.testing.assert_allclose(found, nearest, atol=1.0)  # noise and speech correlate a little
    assert set(nearest) == set(distortions.NOISE_RATIOS)


def test_another_voice_starts_in_the_first_three_quarters():
    other = np.roll(AUDIO, 1, axis=0)
    result = np.asarray(distortions.add_voice(KEY, AUDIO, other, LENGTHS), np.float64)
    starts = []
    for b in range(2, ROWS):
        n = LENGTHS[b]
        gain = result[b, 0] / AUDIO[b, 0]  # the other is silent at first
        rest = result[b, :n] - gain * AUDIO[b, :n]
        start = np.flatnonzero(np.abs(rest) > 1e-3)[0]
        late = other[b, : n - start]
        scale = rest[start:] @ late / (late @ late)
        np.testing.assert_allclose(rest[start:], scale * late, atol=1e-3)
        starts.append(start / n)
    assert max(starts) < 0.75 and min(starts) < 0.1 and max(starts) > 0.6


def test_clipping_limits_to_a_share_of_the_extremes():
    result = np.asarray(distortions.clip(KEY, AUDIO))
    seen = set()
    for b in range(1, ROWS):
        factor = result[b].max() / AUDIO[b].max()
        seen.add(round(float(factor), 4))
        limits = factor * AUDIO[b].min(), factor * AUDIO[b].max()
        np.testing.assert_allclose(result[b], np.clip(AUDIO[b], *limits), atol=1e-6)
    assert seen == set(distortions.CLIP_FACTORS)


def test_gaps_are_few_short_and_silent():
    ones = REAL.astype(np.float32)
    result = np.asarray(distortions.cut_gaps(KEY, ones, LENGTHS))
    assert set(np.unique(result)) == {0, 1}
    edges = np.diff(np.pad(np.where(REAL, result, 1), ((0, 0), (1, 1)), constant_values=1), axis=1)
    number = (edges == -1).sum(-1)
    assert number[1:].min() >= 1 and number.max() <= distortions.MOST_GAPS
    lost = (ones - result).sum(-1)[number == 1]
    assert 300 < lost[lost > 0].mean() < 1800  # 20 to 110 ms: about 75, cut at the ends


def test_a_stopped_band_is_gone_and_the_rest_is_scaled():
    whole = AUDIO[1::2]  # rows that fill the width, so that a bin is a frequency
    result = np.asarray(distortions.stop_band(KEY, whole))
    np.testing.assert_allclose(energy(result), energy(whole), rtol=1e-4)
    before, after = np.abs(np.fft.rfft(whole)), np.abs(np.fft.rfft(result))
    hertz = np.arange(before.shape[1]) * 16_000 / SAMPLES
    ranges = set()
    for b in range(len(whole)):
        gone = after[b] < 1e-3 * before[b]
        if gone.any():
            at = hertz[gone]
            assert (np.diff(np.flatnonzero(gone)) == 1).all()
            ranges |= {r for r in distortions.STOPPED if r[0] <= at[0] and at[-1] <= r[1]}
            assert any(r[0] <= at[0] and at[-1] <= r[1] for r in distortions.STOPPED)
        kept = ~gone & (before[b] > 1)
        np.testing.assert_allclose(
            after[b, kept] / before[b, kept], np.median(after[b, kept] / before[b, kept]), rtol=1e-2
        )
    assert ranges == set(distortions.STOPPED)


def test_reverberation_is_an_impulse_and_a_decaying_tail():
    click = np.zeros((8, SAMPLES), np.float32)
    click[:, 100] = 1
    result = np.asarray(distortions.reverberate(KEY, click))
    np.testing.assert_allclose(energy(result), 1, rtol=1e-3)
    assert (np.abs(result[:, :100]) < 1e-5).all()  # nothing is heard before its cause
    assert (np.abs(result).argmax(-1) == 100).all()
    early, late = energy(result[:, 101:600]), energy(result[:, 2600:3100])
    assert (late < early).all()
    # 60 dB in 0.3 to 0.9 s: 2500 samples later the tail has lost 10 to 31 dB
    fall = 10 * np.log10(early / late)
    assert fall.min() > 7 and fall.max() < 36
