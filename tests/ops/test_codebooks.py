"""Shares, perplexity and diversity in closed form."""

import numpy as np

from taichu_jax.ops.codebooks import code_shares, diversity, mean_probabilities
from taichu_jax.ops.monitors import perplexity

INDICES = np.array([[[0, 2], [0, 1], [3, 3]], [[1, 2], [2, 2], [3, 3]]], np.int32)
WHERE = np.array([[True, True, False], [True, False, False]])


def test_shares_count_choices_where_they_count():
    shares = np.asarray(code_shares(INDICES, WHERE, 4))
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0, 0], [0, 1 / 3, 2 / 3, 0]], rtol=1e-6)
    total, count = perplexity(shares)
    bits = -(2 / 3) * np.log2(2 / 3) - (1 / 3) * np.log2(1 / 3)
    np.testing.assert_allclose(total / count, 2**bits, rtol=1e-5)


def test_nothing_that_counts():
    nothing = np.zeros_like(WHERE)
    np.testing.assert_array_equal(code_shares(INDICES, nothing, 4), 0)
    np.testing.assert_array_equal(mean_probabilities(np.full((2, 3, 2, 4), 0.25), nothing), 0)


def test_diversity_is_0_for_even_use_and_almost_1_for_one_code():
    np.testing.assert_allclose(diversity(np.full((2, 4), 0.25, np.float32)), 0, atol=1e-6)
    one = np.eye(4, dtype=np.float32)[[1, 3]]
    np.testing.assert_allclose(diversity(one), 1 - 2 / 8, rtol=1e-6)
