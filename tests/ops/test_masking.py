import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.masking import choose_exactly, corrupt_tokens, share_of


def test_exactly_the_asked_number_among_the_allowed():
    rng = np.random.default_rng(0)
    allowed = rng.uniform(size=(300, 12)) < 0.6
    allowed[0], allowed[1] = False, True
    count = np.minimum(rng.integers(0, 13, 300), allowed.sum(1)).astype(np.int32)
    chosen = np.asarray(choose_exactly(jax.random.key(0), allowed, count))
    np.testing.assert_array_equal(chosen.sum(1), count)
    assert not (chosen & ~allowed).any()


def test_more_than_there_are_gives_all():
    allowed = np.array([[True, False, True]])
    np.testing.assert_array_equal(
        choose_exactly(jax.random.key(0), allowed, jnp.array([9])), allowed
    )


def test_every_subset_is_equally_likely():
    rows = 6000
    allowed = np.tile([True, True, False, True, True], (rows, 1))
    chosen = np.asarray(choose_exactly(jax.random.key(1), allowed, jnp.full(rows, 2)))
    subsets, counts = np.unique(chosen @ (1 << np.arange(5)), return_counts=True)
    assert len(subsets) == 6  # 4 choose 2
    expected = rows / 6
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected * 5 / 6)


@pytest.mark.parametrize(
    "available, want",
    [(0, 0), (1, 1), (3, 1), (6, 1), (10, 2), (11, 2), (14, 2), (16, 2), (17, 3), (20, 3), (30, 4)],
)
def test_fifteen_percent_is_rounded_and_at_least_one(available, want):
    """round(0.15 n), halves to even: 10 -> 1.5 -> 2, 30 -> 4.5 -> 4; never none of some."""
    allowed = np.arange(40)[None] < available
    assert share_of(allowed, 0.15)[0] == want


def test_share_never_exceeds_what_there_is():
    allowed = np.arange(8) < np.arange(9)[:, None]
    np.testing.assert_array_equal(share_of(allowed, 1.0), np.arange(9))
    np.testing.assert_array_equal(share_of(allowed, 0.0), [0] + [1] * 8)


def test_corruption_rates():
    """80 / 10 / 10 within four standard deviations; random tokens are uniform over the text's ids."""
    first, vocab, mask = 6, 16, 1
    tokens = np.random.default_rng(2).integers(first, vocab, (400, 200)).astype(np.int32)
    chosen = np.random.default_rng(3).uniform(size=tokens.shape) < 0.5
    got = np.asarray(
        corrupt_tokens(
            jax.random.key(2), tokens, chosen, mask_token=mask, first_token=first, vocab_size=vocab
        )
    )
    np.testing.assert_array_equal(got[~chosen], tokens[~chosen])
    assert got.dtype == np.int32
    n = chosen.sum()

    def near(share, p, n=n):
        return abs(share - p) < 4 * np.sqrt(p * (1 - p) / n)

    masked = got == mask
    random = chosen & ~masked & (got != tokens)
    assert near(masked[chosen].mean(), 0.8)
    # A random token is the old one in one of ten cases, so 9 % are seen to change.
    assert near(random[chosen].mean(), 0.1 * 0.9)
    assert near((got == tokens)[chosen].mean(), 0.1 + 0.1 * 0.1)
    values, counts = np.unique(got[random], return_counts=True)
    assert values.min() == first and values.max() == vocab - 1
    expected = random.sum() / (vocab - first)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("mask_rate, random_rate", [(1.0, 0.0), (0.0, 0.0), (0.0, 1.0)])
def test_corruption_of_one_kind(mask_rate, random_rate):
    tokens = np.full((50, 50), 7, np.int32)
    got = np.asarray(
        corrupt_tokens(
            jax.random.key(0),
            tokens,
            tokens > 0,
            mask_token=1,
            first_token=8,
            vocab_size=20,
            mask_rate=mask_rate,
            random_rate=random_rate,
        )
    )
    if mask_rate:
        assert (got == 1).all()
    elif random_rate:
        assert (got >= 8).all() and (got < 20).all()
    else:
        assert (got == 7).all()
