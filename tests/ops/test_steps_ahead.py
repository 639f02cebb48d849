"""What belongs to which target, and the binary loss in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.ops.negatives import sample_in_groups
from taichu_jax.ops.steps_ahead import StepScores, binary_losses, line_up, step_scores

RNG = np.random.default_rng(0)
LENGTHS = np.array([5, 7, 1, 0])
REAL = np.arange(7) < LENGTHS[:, None]
LATENTS = RNG.normal(size=(4, 7, 3)).astype(np.float32)
PREDICTIONS = RNG.normal(size=(4, 7, 12)).astype(np.float32)


@pytest.mark.parametrize("first", [1, 3, 6])
def test_predictions_meet_their_targets(first):
    lined = np.asarray(line_up(jnp.asarray(PREDICTIONS.reshape(4, 7, 4, 3)), first))
    for n in range(7):
        for j in range(4):
            t = n - first - j
            expected = PREDICTIONS[:, t, 3 * j : 3 * j + 3] if t >= 0 else np.zeros((4, 3))
            np.testing.assert_array_equal(lined[:, n, j], expected)


def test_scores_against_loops():
    key, groups = jax.random.key(0), jnp.array([0, 1, 1, 0])
    scores = jax.jit(
        lambda *a: step_scores(key, *a, groups, steps=4, first=2, count=5),
    )(PREDICTIONS, LATENTS, REAL)
    others = np.asarray(sample_in_groups(key, jnp.asarray(REAL), groups, 5)[0])
    flat = LATENTS.reshape(28, 3)
    for b in range(4):
        for n in range(7):
            for j in range(4):
                t = n - 2 - j
                there = t >= 0 and n < LENGTHS[b]
                assert scores.there[b, n, j] == there
                if there:
                    p = PREDICTIONS[b, t, 3 * j : 3 * j + 3]
                    np.testing.assert_allclose(scores.own[b, n, j], p @ LATENTS[b, n], rtol=1e-4)
                    expected = [p @ flat[m] for m in others[b, n]]
                    np.testing.assert_allclose(scores.others[b, n, j], expected, rtol=1e-4)


def test_binary_loss():
    own, others = np.array([0.5, -2.0]), np.array([[1.0, -1.0, 3.0], [0.0, 2.0, -4.0]])
    scores = StepScores(jnp.asarray(own), jnp.asarray(others), jnp.ones(2, bool))

    def log_sigmoid(x):
        return np.log(1 / (1 + np.exp(-x)))

    for weight, used in ((None, 3), (1.0, 1)):
        expected = -log_sigmoid(own) - used * log_sigmoid(-others).mean(-1)
        np.testing.assert_allclose(binary_losses(scores, weight), expected, rtol=1e-5)


def test_errors_say_what_is_wrong():
    def run(predictions, first):
        step_scores(
            jax.random.key(0),
            jnp.asarray(predictions),
            jnp.asarray(LATENTS),
            jnp.asarray(REAL),
            jnp.arange(4),
            steps=4,
            first=first,
            count=2,
        )

    with pytest.raises(UserError, match="gives 11 features; 4 steps of latents 3 wide need 12"):
        run(PREDICTIONS[..., 1:], 1)
    with pytest.raises(UserError, match="first=7: must be from 1 to 6"):
        run(PREDICTIONS, 7)
