"""Span masks: exact counts, the closed form of the density, and a fixed draw."""

import functools
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.spans import span_mask, span_starts, spans_from


@functools.partial(jax.jit, static_argnames=("size", "rate", "span", "at_least"))
def starts_of(key, lengths, size, rate, span, at_least):
    return span_starts(key, lengths, size, rate=rate, span=span, at_least=at_least)


def test_number_of_starts_is_exact_per_row():
    lengths = jnp.array([40, 37, 33, 5, 4, 3, 0] * 500)
    starts = np.asarray(starts_of(jax.random.key(0), lengths, 40, 0.65, 4, 2))
    counts, places = starts.sum(1), np.maximum(np.asarray(lengths) - 4, 0)
    for length in (40, 37, 33):
        here = counts[np.asarray(lengths) == length]
        expected = 0.65 * length / 4  # 6.5, 6.01, 5.36: rounded up with the fraction's probability
        assert set(here) <= {int(expected), int(expected) + 1}
        deviation = np.sqrt((expected % 1) * (1 - expected % 1) / len(here))
        assert abs(here.mean() - expected) < 5 * deviation
    assert (counts[places == 1] == 1).all()  # fewer places than starts: one at each
    assert (counts[places == 0] == 0).all()
    assert not starts[np.arange(40) >= places[:, None]].any()


def test_at_least():
    lengths = jnp.full((50,), 30)
    for at_least in (1, 2, 5):
        starts = starts_of(jax.random.key(1), lengths, 32, 0.0, 3, at_least)
        assert (starts.sum(1) == at_least).all()


def test_density_has_its_closed_form():
    """P(t hidden) = 1 - C(places - w_t, n) / C(places, n), w_t the starts whose span reaches t."""
    length, span, n, rows = 20, 5, 2, 20_000  # rate * length / span = 2 exactly
    places = length - span
    mask = jax.jit(lambda k: span_mask(k, jnp.full((rows,), length), 24, rate=0.5, span=span))
    share = np.asarray(mask(jax.random.key(2))).mean(0)
    for t in range(24):
        reach = sum(1 for s in range(places) if s <= t < s + span)
        exact = 1 - comb(places - reach, n) / comb(places, n)
        assert abs(share[t] - exact) <= 5 * np.sqrt(exact * (1 - exact) / rows) + 1e-6, t
    assert share[length - 1] == 0  # the last step stays visible


def test_spans_are_unions():
    rng = np.random.default_rng(0)
    starts = rng.uniform(size=(6, 30)) < 0.15
    expected = np.zeros_like(starts)
    for b in range(6):
        for s in range(30):
            if starts[b, s]:
                expected[b, s : s + 4] = True
    np.testing.assert_array_equal(spans_from(jnp.asarray(starts), 4), expected)


def test_fixed_draw():
    mask = span_mask(jax.random.key(0), jnp.array([16, 9, 3]), 16, rate=0.65, span=3)
    rows = ["".join(".#"[int(x)] for x in row) for row in np.asarray(mask)]
    assert rows == ["...###...####...", "....####........", "................"]
