"""Diversity of samples beside that of real things, by hand."""

import numpy as np
import pytest

from taichu_jax.evals.diversity import cosine_distance, distinct, diversity, squared_error


def test_diversity_is_a_ratio_of_mean_distances():
    real = [np.array([0.0, 0.0]), np.array([0.0, 2.0]), np.array([0.0, 4.0])]  # 2, 2 and 8
    samples = [[np.array([1.0, 1.0]), np.array([1.0, 2.0])], [real[0], real[0]]]  # 0.5 and 0
    assert diversity(samples, real, squared_error) == pytest.approx(0.25 / 4)
    assert diversity([real], real, squared_error) == pytest.approx(1)
    assert np.isnan(diversity([[real[0]]], real, squared_error))
    assert np.isnan(diversity(samples, real[:1], squared_error))


def test_distances():
    assert cosine_distance(np.array([1.0, 0.0]), np.array([0.6, 0.8])) == pytest.approx(0.4)
    long, short = np.ones((5, 2)), np.zeros((3, 2))
    assert squared_error(long, short) == 1
    assert squared_error(long, short[:0]) == 0


def test_distinct_counts_codes_of_one_shape_and_content():
    rows = [np.array([1, 2]), np.array([1, 2]), np.array([2, 1]), np.array([[1, 2]])]
    assert distinct(rows) == 75
    assert np.isnan(distinct([]))
