"""The transducer's sum against all alignments, one by one, and its gradient against differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.ops.lattice import transducer_losses

FRAMES, LABELS = 4, 3
SHAPES = [(4, 3), (4, 0), (1, 3), (2, 2), (1, 0), (3, 1)]


def log_scores(seed=0):
    rng = np.random.default_rng(seed)
    blank = np.log(rng.uniform(0.05, 0.6, (len(SHAPES), FRAMES, LABELS + 1)))
    label = np.log(rng.uniform(0.05, 0.6, (len(SHAPES), FRAMES, LABELS)))
    return blank, label


def enumerated(blank, label, frames, labels):
    """- log of the sum over all orders of `frames` blanks, the last one at the end, and `labels`."""
    total = 0.0
    moves = frames - 1 + labels
    for writes in itertools.combinations(range(moves), labels):
        t = u = 0
        log_p = 0.0
        for move in range(moves):
            if move in writes:
                log_p += label[t, u]
                u += 1
            else:
                log_p += blank[t, u]
                t += 1
        total += np.exp(log_p + blank[t, u])
    return -np.log(total)


@pytest.fixture(scope="module")
def compiled():
    frames, labels = map(jnp.array, zip(*SHAPES, strict=True))

    def total(blank, label):
        losses = transducer_losses(blank, label, frames, labels)
        return losses.sum(), losses

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def expected(blank, label):
    return np.array(
        [enumerated(b, y, *shape) for b, y, shape in zip(blank, label, SHAPES, strict=True)]
    )


def test_equals_the_sum_over_all_alignments(compiled):
    blank, label = log_scores()
    (_, losses), _ = compiled(blank, label)
    np.testing.assert_allclose(losses, expected(blank, label), rtol=1e-5)


def test_gradient_equals_finite_differences_of_the_enumeration(compiled):
    scores = log_scores(1)
    _, grads = compiled(*scores)
    epsilon = 1e-5
    for which, grad in enumerate(grads):
        for index in np.ndindex(grad.shape):
            ends = []
            for sign in (1, -1):
                moved = [s.copy() for s in scores]
                moved[which][index] += sign * epsilon
                row = index[0]
                ends.append(enumerated(moved[0][row], moved[1][row], *SHAPES[row]))
            assert grad[index] == pytest.approx((ends[0] - ends[1]) / (2 * epsilon), abs=1e-4)


def test_no_state_at_all_is_finite():
    blank, label = log_scores()
    zeros = jnp.zeros(len(SHAPES), jnp.int32)
    value = transducer_losses(blank, label, zeros, zeros)
    assert np.isfinite(value).all()
