"""DeCoAR against a triple loop over utterances, slices and places, given the encoder's states."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.training.nets import BoundNets
from tests import case as cases


def test_loss_is_the_papers():
    modules, objective, params, *_ = cases.built("decoar")
    batch = cases.load("decoar").batch

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        return objective.loss(nets, batch, None, jax.random.key(0)), nets("speech", *batch.values())

    loss, encoded = run(params)
    states = np.asarray(encoded.tokens)
    head = jax.tree.map(np.asarray, params["decoar_head"])
    errors, lines, middle = [], [], []
    for b, n in enumerate(batch["mel_lengths"]):
        x = batch["mel"][b]
        for t in range(n - 4):
            around = np.concatenate([states[b, t, :8], states[b, t + 4, 8:]])
            for i in range(5):
                hidden = np.maximum(around @ head["up"]["kernel"][i] + head["up"]["bias"][i], 0)
                y = hidden @ head["down"]["kernel"][i] + head["down"]["bias"][i]
                errors.extend(np.abs(x[t + i] - y))
                lines.extend(np.abs(x[t + i] - ((4 - i) * x[t] + i * x[t + 4]) / 4))
                if i == 2:
                    middle.extend(np.abs(x[t + i] - y))
    np.testing.assert_allclose(loss.value, np.mean(errors), rtol=1e-5)
    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    np.testing.assert_allclose(metrics["line_error"], np.mean(lines), rtol=1e-5)
    np.testing.assert_allclose(metrics["middle_error"], np.mean(middle), rtol=1e-5)
    assert loss.metrics["line_error"][1] == len(errors)


def test_a_slice_is_predicted_from_outside_it():
    """The slice at t has read everything up to t and from t + 4 on, and nothing between."""
    modules, objective, params, *_ = cases.built("decoar")
    batch, t = cases.load("decoar").batch, 7

    def sensitivity(mel):
        seen = []

        class Spy(BoundNets):
            def __call__(self, name, *args, **kwargs):
                result = super().__call__(name, *args, **kwargs)
                if name == "decoar_head":
                    seen.append(result)
                return result

        other = {**batch, "mel": mel}
        objective.loss(Spy(modules, params), other, None, jax.random.key(0))
        return (seen[0][:, t] ** 2).sum()

    grad = np.abs(jax.jit(jax.grad(sensitivity))(batch["mel"])).max(-1)
    steps = np.arange(grad.shape[1])
    for b, n in enumerate(batch["mel_lengths"]):
        np.testing.assert_array_equal(
            grad[b] > 0, (steps <= t) | ((steps >= t + 4) & (steps < n)), err_msg=f"row {b}"
        )


def test_utterances_no_longer_than_a_slice_count_for_nothing():
    modules, objective, params, *_ = cases.built("decoar")
    batch = cases.load("decoar").batch
    lengths = np.array([4, 0, 4, 1, 2, 3, 4, 5], np.int32)
    loss = jax.jit(
        lambda p: objective.loss(
            BoundNets(modules, p), batch | {"mel_lengths": lengths}, None, jax.random.key(0)
        )
    )(params)
    assert loss.metrics["line_error"][1] == 5 * 16  # one slice, of the last row


def test_errors_say_what_is_wrong():
    modules, objective, params, *_ = cases.built("decoar")

    def run(ahead):
        other = dataclasses.replace(objective, ahead=ahead)
        batch = cases.load("decoar").batch
        jax.eval_shape(
            lambda: other.loss(BoundNets(modules, params), batch, None, jax.random.key(0))
        )

    with pytest.raises(UserError, match="ahead=32: must be from 1 to 31"):
        run(32)
    with pytest.raises(
        UserError, match=r"slices of \(5, 16\) .* ahead=3 and mel make them \(4, 16\)"
    ):
        run(3)
