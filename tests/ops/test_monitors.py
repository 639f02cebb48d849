import numpy as np

from taichu_jax.ops.monitors import feature_std, perplexity


def test_feature_std_of_spread_and_collapsed_features():
    rng = np.random.default_rng(0)
    spread, count = feature_std(rng.normal(size=(4000, 16)))
    assert count == 1 and abs(spread - 1) < 0.02
    collapsed, _ = feature_std(np.tile(rng.normal(size=16), (50, 1)) * rng.uniform(1, 9, (50, 1)))
    assert collapsed < 1e-3


def test_feature_std_counts_only_what_it_is_told_to():
    rng = np.random.default_rng(1)
    x, where = rng.normal(size=(4, 5, 8)), rng.uniform(size=(4, 5)) < 0.5
    rows = [v / np.sqrt((v**2).sum()) for v in x[where]]
    expected = np.mean([np.std([r[d] for r in rows]) for d in range(8)]) * np.sqrt(8)
    spoiled = np.where(where[..., None], x, 1e6)
    np.testing.assert_allclose(feature_std(x, where)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(feature_std(spoiled, where)[0], expected, rtol=1e-5)
    assert feature_std(x, np.zeros((4, 5), bool))[0] == 0
    assert np.isfinite(feature_std(np.zeros((3, 4)))[0])


def test_perplexity_is_the_number_of_codes_in_use():
    uniform = np.full((3, 7), 1 / 7)
    total, count = perplexity(uniform)
    np.testing.assert_allclose(total / count, 7, rtol=1e-5)
    one = np.eye(5)[:2]
    total, count = perplexity(one)
    np.testing.assert_allclose((total, count), (2, 2), rtol=1e-5)
    half = np.array([0.5, 0.5, 0, 0])
    np.testing.assert_allclose(perplexity(half)[0], 2, rtol=1e-5)
