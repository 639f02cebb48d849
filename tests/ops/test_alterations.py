"""Alterations of speech: exact counts, shares and ranges, fixed draws; the error against a loop."""

import functools
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.alterations import (
    alter_frequency,
    alter_magnitude,
    alter_time,
    reconstruction_error,
)


@functools.partial(jax.jit, static_argnames=("rate", "span", "zero_rate", "random_rate"))
def time(key, mel, lengths, rate=0.15, span=7, zero_rate=0.8, random_rate=0.1):
    return alter_time(
        key,
        mel,
        lengths,
        rate=rate,
        span=span,
        zero_rate=zero_rate,
        random_rate=random_rate,
    )


def clock(rows, frames, bands=1):
    """[rows, frames, bands] whose value tells the frame: 1, 2, 3 ..."""
    mel = np.arange(1, frames + 1, dtype=np.float32)[None, :, None]
    return np.broadcast_to(mel, (rows, frames, bands))


def five_sigma(share, exact, rows):
    return abs(share - exact) <= 5 * np.sqrt(exact * (1 - exact) / rows) + 1e-6


def test_number_of_spans_is_exact_and_short_rows_are_left_alone():
    lengths = np.arange(120)
    mel = clock(120, 120)
    # spans of one frame cannot overlap: their number shows, Python's rounding included
    where = np.asarray(time(jax.random.key(0), mel, lengths, span=1)[1])[..., 0]
    np.testing.assert_array_equal(where.sum(1), [round(0.15 * n) for n in lengths])
    # the paper's spans
    where = np.asarray(time(jax.random.key(1), mel, lengths)[1])[..., 0]
    for n, row in enumerate(where):
        spans = round(0.15 * n / 7)
        assert not row[: 24 if n < 24 else 0].any() and not row[max(n - 1, 0) :].any()
        assert min(spans, 1) * 7 <= row.sum() <= spans * 7
        if spans == 1:
            assert set(np.diff(np.flatnonzero(row))) == {1}
    # more spans than places: every place is one, and only the last frame stays
    where = np.asarray(time(jax.random.key(2), mel, lengths, rate=50.0)[1])[..., 0]
    assert [row.sum() for row in where] == [n - 1 if n > 7 else 0 for n in lengths]


def test_density_has_its_closed_form():
    """P(t chosen) = 1 - C(places - w_t, n) / C(places, n), w_t the starts whose span reaches t."""
    length, span, n, rows = 20, 4, 3, 20_000  # 0.6 * 20 / 4 = 3 spans
    places = length - span
    mel, lengths = clock(rows, 24), np.full(rows, length)
    share = np.asarray(time(jax.random.key(2), mel, lengths, rate=0.6, span=span)[1])[..., 0]
    for t in range(24):
        reach = sum(1 for s in range(places) if s <= t < s + span)
        exact = 1 - comb(places - reach, n) / comb(places, n)
        assert five_sigma(share[:, t].mean(), exact, rows), t


def test_one_draw_per_utterance_decides():
    rows, length, span = 20_000, 30, 7
    places = length - span
    mel = clock(rows, 32, 2)
    altered, where = time(jax.random.key(3), mel, np.full(rows, length))
    altered, where = np.asarray(altered), np.asarray(where)
    np.testing.assert_array_equal(where[..., 0], where[..., 1])
    np.testing.assert_array_equal(altered[~where], mel[~where])
    chosen = np.stack([row[w] for row, w in zip(altered[..., 0], where[..., 0], strict=True)])
    first = where[..., 0].argmax(1) + 1
    zeroed = (chosen == 0).all(1)
    kept = (chosen == first[:, None] + np.arange(span)).all(1)
    assert not (chosen == 0).any(1)[~zeroed].any()  # never zero in part
    moved = ~zeroed & ~kept
    assert (np.diff(chosen[moved], axis=1) == 1).all()  # another span, whole and in order
    assert five_sigma(zeroed.mean(), 0.8, rows)
    assert five_sigma(kept.mean(), 0.1 + 0.1 / places, rows)  # a replacement may be the span itself
    assert five_sigma(moved.mean(), 0.1 - 0.1 / places, rows)


def test_replacements_come_from_anywhere_in_the_utterance():
    rows, length, span = 20_000, 30, 7
    places = length - span
    mel = clock(rows, 32)
    altered, where = time(
        jax.random.key(4), mel, np.full(rows, length), zero_rate=0.0, random_rate=1.0
    )
    first = np.asarray(altered)[np.arange(rows), np.asarray(where)[..., 0].argmax(1), 0]
    for place in range(places):
        assert five_sigma((first == place + 1).mean(), 1 / places, rows), place
    assert set(first) == set(range(1, places + 1))


def test_every_span_gets_its_own_replacement():
    """Spans of one frame: sources do not repeat, and all bands move together."""
    mel = clock(500, 20, 2)
    altered, where = time(
        jax.random.key(5), mel, np.full(500, 20), rate=0.4, span=1, zero_rate=0.0, random_rate=1.0
    )
    altered, where = np.asarray(altered), np.asarray(where)[..., 0]
    np.testing.assert_array_equal(altered[..., 0], altered[..., 1])
    assert (where.sum(1) == 8).all()
    assert all(len(set(row[w])) == 8 for row, w in zip(altered[..., 0], where, strict=True))


def test_an_overlapped_replacement_goes_on_until_the_next_begins():
    mel = clock(500, 20)
    altered, where = time(
        jax.random.key(6), mel, np.full(500, 20), rate=0.6, span=4, zero_rate=0.0, random_rate=1.0
    )
    runs = []
    for row, chosen in zip(np.asarray(altered)[..., 0], np.asarray(where)[..., 0], strict=True):
        frames = np.flatnonzero(chosen)
        pieces = np.split(frames, 1 + np.flatnonzero(np.diff(row[frames]) != 1))
        runs.extend(len(piece) for piece in pieces)
        assert len(pieces) <= 3  # never back to a span that another one has cut short
    assert {1, 2, 3, 4} <= set(runs)


@pytest.mark.parametrize("alter", [alter_time, alter_frequency, alter_magnitude])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_padding_is_neither_altered_nor_counted(alter, dtype):
    lengths = np.array([40, 30, 8, 3, 0] * 20)
    padding = np.arange(40) >= lengths[:, None]
    mel = np.where(padding[..., None], np.nan, clock(100, 40, 5))
    rate = {} if alter is alter_frequency else {"rate": 0.6}
    altered, where = alter(jax.random.key(0), jnp.asarray(mel, dtype), lengths, **rate)
    assert altered.dtype == dtype and where.dtype == bool and where.shape == mel.shape
    altered, where = np.asarray(altered, np.float32), np.asarray(where)
    assert where.any() and not where[padding].any()
    assert np.isnan(altered[padding]).all() and np.isfinite(altered[~padding]).all()


def test_bands_are_one_range_of_uniform_width_and_place():
    rows, bands, widest = 30_000, 10, 3
    lengths = np.full(rows, 2)
    alter = jax.jit(functools.partial(alter_frequency, share=0.39))  # floor(3.9) = 3
    altered, where = (np.asarray(x) for x in alter(jax.random.key(0), clock(rows, 3, 10), lengths))
    np.testing.assert_array_equal(altered, np.where(where, 0, clock(rows, 3, 10)))
    np.testing.assert_array_equal(where[:, 0], where[:, 1])  # through the whole utterance
    assert not where[:, 2].any()
    band = where[:, 0]
    width, first = band.sum(1), band.argmax(1)
    index = np.arange(bands)
    one_range = (index >= first[:, None]) & (index < (first + width)[:, None])
    np.testing.assert_array_equal(band, one_range)
    for w in range(widest + 1):
        assert five_sigma((width == w).mean(), 1 / (widest + 1), rows)
        for start in range(bands - w) if w else ():
            share = ((width == w) & (first == start)).mean()
            assert five_sigma(share, 1 / (widest + 1) / (bands - w), rows), (w, start)
    assert width.max() == widest and not band[:, -1].any()


def test_noise_is_drawn_for_an_utterance_or_for_the_batch():
    rows = 5000
    mel, lengths = clock(rows, 4, 3), np.full(rows, 3)
    alter = jax.jit(alter_magnitude, static_argnames=("whole_batch",))
    altered, where = (np.asarray(x) for x in alter(jax.random.key(0), mel, lengths))
    noisy = where[:, 0, 0]
    assert five_sigma(noisy.mean(), 0.15, rows)
    np.testing.assert_array_equal(where[:, :3], np.broadcast_to(noisy[:, None, None], (rows, 3, 3)))
    np.testing.assert_array_equal(altered[~where], mel[~where])
    noise = (altered - mel)[where]
    assert abs(noise.mean()) < 5 * 0.2 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.2) < 5 * 0.2 / np.sqrt(2 * noise.size)
    assert len(np.unique(noise)) > 0.9 * noise.size  # every cell has its own

    mel, lengths = clock(6, 4, 3), np.full(6, 4)
    coins = []
    for key in jax.random.split(jax.random.key(1), 200):
        where = np.asarray(alter(key, mel, lengths, whole_batch=True)[1])
        assert where.all() or not where.any()
        coins.append(where.all())
    assert five_sigma(np.mean(coins), 0.15, 200)


def test_fixed_draws():
    mel, lengths = clock(4, 16), np.array([16, 16, 12, 5])
    altered = time(
        jax.random.key(1), mel, lengths, rate=0.4, span=3, zero_rate=0.4, random_rate=0.4
    )[0]
    rows = [" ".join(str(int(x)) for x in row) for row in np.asarray(altered)[..., 0]]
    assert rows == [
        "1 2 3 8 7 8 9 8 9 10 11 12 13 14 15 16",  # 4.. from 8, cut short by 5.. from 7
        "1 2 3 4 5 0 0 0 9 10 11 12 0 0 0 16",
        "1 2 3 4 5 4 5 7 8 9 11 12 13 14 15 16",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    ]


@pytest.mark.parametrize("stride", [1, 3])
def test_error_is_the_loop(stride):
    rng = np.random.default_rng(0)
    mel, where = rng.normal(size=(3, 7, 2)), rng.uniform(size=(3, 7, 2)) < 0.5
    lengths = np.array([7, 5, 0])
    where &= (np.arange(7) < lengths[:, None])[..., None]
    predicted = rng.normal(size=(3, -(-7 // stride), stride * 2))
    errors = [
        abs(predicted[b, t // stride, (t % stride) * 2 + m] - mel[b, t, m])
        for b in range(3)
        for t in range(7)
        for m in range(2)
        if where[b, t, m]
    ]
    total, count = reconstruction_error(*map(jnp.asarray, (predicted, mel, lengths, where)))
    np.testing.assert_allclose(total, np.sum(errors), rtol=1e-5)
    assert count == len(errors)


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 4, 3), (1, 4, 1)])
def test_error_refuses_other_shapes(shape):
    mel = jnp.zeros((1, 7, 2))
    with pytest.raises(UserError, match="not 7 frames of 2 bands"):
        reconstruction_error(jnp.zeros(shape), mel, jnp.array([7]), mel > 0)
