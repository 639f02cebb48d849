"""Alignments against all of them enumerated, the prior against SciPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from taichu_jax.ops import alignment as ops

FRAMES, PLACES = 7, 4
LENGTHS = np.array([7, 5, 4, 6, 3])
SYMBOLS = np.array([4, 3, 4, 1, 3])


def scores(seed=0):
    rng = np.random.default_rng(seed)
    log_p = rng.normal(size=(len(LENGTHS), FRAMES, PLACES)) * 2
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    return log_p.astype(np.float32)


def paths(frames, symbols):
    """Every alignment: where the symbols 1, 2, ... begin."""
    for starts in itertools.combinations(range(1, frames), symbols - 1):
        yield np.searchsorted(starts, np.arange(frames), side="right")


def likelihoods(log_p, frames, symbols):
    every = list(paths(frames, symbols))
    return every, np.array([log_p[np.arange(frames), p].sum() for p in every])


@pytest.fixture(scope="module")
def compiled():
    def both(log_p, lengths, symbols):
        losses, back = jax.vjp(lambda x: ops.forward_sum_losses(x, lengths, symbols), log_p)
        found = ops.monotonic_alignment(log_p, lengths, symbols)
        return (
            losses,
            back(jnp.ones_like(losses))[0],
            found,
            ops.durations_of(found, lengths, PLACES),
        )

    return jax.jit(both)


forward_sum = functools.partial(jax.jit, static_argnames="blank")(ops.forward_sum_losses)


def test_the_likeliest_of_all_alignments_is_found(compiled):
    for seed in range(8):
        log_p = scores(seed)
        _, _, found, durations = compiled(log_p, LENGTHS, SYMBOLS)
        for row, (frames, symbols) in enumerate(zip(LENGTHS, SYMBOLS, strict=True)):
            every, sums = likelihoods(log_p[row], frames, symbols)
            best = every[sums.argmax()]
            np.testing.assert_array_equal(found[row, :frames], best)
            np.testing.assert_array_equal(durations[row], np.bincount(best, minlength=PLACES))
    assert (durations.sum(1) == LENGTHS).all()


def test_forward_sum_is_the_sum_over_all_alignments(compiled):
    log_p = scores()
    losses, gradient, _, _ = compiled(log_p, LENGTHS, SYMBOLS)
    for row, (frames, symbols) in enumerate(zip(LENGTHS, SYMBOLS, strict=True)):
        every, sums = likelihoods(log_p[row].astype(np.float64), frames, symbols)
        total = np.logaddexp.reduce(sums)
        assert losses[row] == pytest.approx(-total, rel=1e-5)
        # The gradient is minus each symbol's posterior at each frame; nothing outside is touched.
        posterior = np.zeros((FRAMES, PLACES))
        for path, likelihood in zip(every, sums, strict=True):
            posterior[np.arange(frames), path] += np.exp(likelihood - total)
        np.testing.assert_allclose(gradient[row], -posterior, atol=1e-5)


def test_with_a_blank_it_is_ctc_of_symbols_that_differ():
    log_p = scores()
    without = forward_sum(log_p, LENGTHS, SYMBOLS)
    log_p[np.arange(PLACES) >= SYMBOLS[:, None, None].repeat(FRAMES, 1)] = ops.NEVER
    log_p -= np.logaddexp.reduce(log_p, axis=-1, keepdims=True)
    no_blank = forward_sum(log_p, LENGTHS, SYMBOLS, blank=ops.NEVER)
    exact = forward_sum(log_p, LENGTHS, SYMBOLS)
    np.testing.assert_allclose(no_blank, exact, rtol=1e-5)
    assert np.abs(exact - without).max() > 0.1  # what stands behind the symbols took its share
    with_blank = forward_sum(log_p, LENGTHS, SYMBOLS, blank=-1.0)
    frames, symbols, lost = 5, 3, np.log1p(np.exp(-1.0))
    total = -np.inf
    for labels in itertools.product(range(symbols + 1), repeat=frames):  # 0 is the blank
        said = [n for n, _ in itertools.groupby(labels) if n]
        if said == [1, 2, 3]:
            p = [-1.0 if n == 0 else log_p[1, t, n - 1] for t, n in enumerate(labels)]
            total = np.logaddexp(total, sum(p) - frames * lost)
    assert with_blank[1] == pytest.approx(-total, rel=1e-5)


@pytest.mark.parametrize("concentration", [1.0, 0.3])
def test_prior_is_scipys_beta_binomial(concentration):
    frames, symbols = np.array([9, 5, 0]), np.array([6, 1, 0])
    prior = jax.jit(ops.beta_binomial_prior, static_argnums=2)
    found = np.asarray(prior(frames, symbols, (10, 6), concentration))
    assert found.shape == (3, 10, 6)
    for row, (count, places) in enumerate(zip(frames, symbols, strict=True)):
        for t in range(1, count + 1):
            shape = (concentration * t, concentration * (count - t + 1))
            expected = scipy.stats.betabinom(places - 1, *shape).logpmf(np.arange(places))
            np.testing.assert_allclose(found[row, t - 1, :places], expected, atol=2e-5)
        assert (found[row, count:] == ops.NEVER).all() and (
            found[row, :, places:] == ops.NEVER
        ).all()


def test_rows_without_an_alignment_are_finite(compiled):
    lengths, symbols = np.array([2, 0, 7, 0, 1]), np.array([4, 3, 0, 0, 2])
    for value in compiled(scores(), lengths, symbols):
        assert np.isfinite(value).all()
