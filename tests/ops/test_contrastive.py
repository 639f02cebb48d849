import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.ops.contrastive import info_nce


def reference(scores, rows, columns, same):
    """-log p of the own column for every pair that is there, in loops and float64."""
    total = right = count = 0
    for i in range(len(scores)):
        if not (rows[i] and columns[i]):
            continue
        candidates = [j for j in range(len(scores)) if columns[j] and (j == i or not same[i, j])]
        exponents = {j: np.exp(float(scores[i, j])) for j in candidates}
        total -= np.log(exponents[i] / sum(exponents.values()))
        right += max(candidates, key=lambda j: scores[i, j]) == i
        count += 1
    return total, right, count


def example(seed, size=7):
    rng = np.random.default_rng(seed)
    scores = (3 * rng.normal(size=(size, size)) + 3 * np.eye(size)).astype(np.float32)
    concept = rng.integers(0, 4, size)
    rows, columns = rng.uniform(size=(2, size)) < 0.7
    return scores, rows, columns, concept[:, None] == concept


def test_is_the_formula():
    compiled = jax.jit(info_nce)
    pairs = duplicates = 0
    for seed in range(10):
        arguments = example(seed)
        np.testing.assert_allclose(compiled(*arguments), reference(*arguments), rtol=1e-5)
        pairs += reference(*arguments)[2]
        duplicates += arguments[3].sum() - len(arguments[3])
    assert pairs > 20 and duplicates > 20


def test_absent_and_equal_columns_weigh_nothing():
    """Whatever the scores of absent rows, absent columns and equal concepts, nothing changes."""
    scores, rows, columns, same = example(1)
    outside = ~rows[:, None] | ~columns[None] | (same & ~np.eye(len(same), dtype=bool))
    spoiled = np.where(outside, 1e4, scores).astype(np.float32)
    want = info_nce(scores, rows, columns, same)
    np.testing.assert_array_equal(info_nce(spoiled, rows, columns, same), want)
    gradient = np.asarray(jax.grad(lambda s: info_nce(s, rows, columns, same)[0])(spoiled))
    assert (gradient[outside] == 0).all() and np.abs(gradient).max() > 0


def test_nothing_there():
    scores, *_, same = example(2)
    nobody = np.zeros(len(scores), bool)
    assert info_nce(scores, nobody, nobody, same) == (0, 0, 0)
    gradient = jax.grad(lambda s: info_nce(s, nobody, nobody, same)[0])(jnp.asarray(scores))
    assert (np.asarray(gradient) == 0).all()


def test_closed_form():
    """Equal scores give log(candidates); a lone pair of one concept gives nothing to learn."""
    size, all_there = 5, np.ones(5, bool)
    flat, alone = np.zeros((size, size), np.float32), np.eye(size, dtype=bool)
    total, _, count = info_nce(flat, all_there, all_there, alone)
    np.testing.assert_allclose(total / count, np.log(size), rtol=1e-6)
    total, right, _ = info_nce(flat, all_there, all_there, np.ones((size, size), bool))
    assert total == 0 and right == size
