"""VQ-APC against a loop over frames, given the encoder's output and the same noise."""

import dataclasses

import jax
import numpy as np
import pytest

from taichu_jax.ops.random import fold_name
from taichu_jax.training.nets import BoundNets
from tests import case as cases


@pytest.mark.parametrize("shift", [1, 5])
def test_loss_is_the_papers(shift):
    modules, objective, params, *_ = cases.built("vq_apc")
    objective = dataclasses.replace(objective, shift=shift)
    batch, rng = cases.load("vq_apc").batch, jax.random.key(7)

    @jax.jit
    def run(params):
        nets = BoundNets(modules, params)
        noise = fold_name(rng, "gumbel")
        states = nets("speech", *batch.values(), noise, 0.5, method="quantise")
        return objective.loss(nets, batch, None, rng), states

    loss, (_, output, codes) = run(params)
    head = np.asarray(params["vq_apc_head"]["linear"]["kernel"])
    errors, copies, chosen = [], [], []
    for b, n in enumerate(batch["mel_lengths"]):
        chosen.extend(np.asarray(codes.indices)[b, :n, 0])
        for t in range(n - shift):
            target = batch["mel"][b, t + shift]
            errors.extend(np.abs(target - np.asarray(output)[b, t] @ head))
            copies.extend(np.abs(target - batch["mel"][b, t]))
    np.testing.assert_allclose(loss.value, np.mean(errors), rtol=1e-5)
    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    np.testing.assert_allclose(metrics["copy_error"], np.mean(copies), rtol=1e-5)
    share = np.bincount(chosen, minlength=6) / len(chosen)
    bits = -sum(p * np.log2(p) for p in share if p > 0)
    np.testing.assert_allclose(metrics["code_perplexity"], 2**bits, rtol=1e-4)
    assert metrics["code_perplexity"] > 1.5  # the noise makes it use several


def test_gradient_is_that_of_the_softmax_at_the_temperature():
    """Behind the last layer: d L / d scores = softmax's Jacobian at tau times d L / d entries chosen."""
    modules, objective, params, *_ = cases.built("vq_apc")
    modules = {**modules, "speech": dataclasses.replace(modules["speech"], after=2)}
    batch, rng, tau = cases.load("vq_apc").batch, jax.random.key(7), 0.3

    def loss(params):
        other = dataclasses.replace(objective, gumbel=tau)
        return other.loss(BoundNets(modules, params), batch, None, rng).value

    grads = jax.jit(jax.grad(loss))(params)
    x = np.asarray(
        jax.jit(modules["speech"].apply)({"params": params["speech"]}, *batch.values()).tokens
    )
    table = jax.tree.map(np.asarray, params["speech"]["quantiser"])
    head = np.asarray(params["vq_apc_head"]["linear"]["kernel"])
    noise = np.asarray(jax.random.gumbel(fold_name(rng, "gumbel"), (*x.shape[:2], 1, 6)))
    expected, count = np.zeros(6), 0
    for b, n in enumerate(batch["mel_lengths"]):
        for t in range(n - 5):
            noisy = x[b, t] @ table["scores_kernel"][0] + table["scores_bias"][0] + noise[b, t, 0]
            entry = table["code_embedding"][0][noisy.argmax()]
            wrong = np.sign(entry @ head - batch["mel"][b, t + 5])
            by_code = table["code_embedding"][0] @ (head @ wrong)
            soft = np.exp(noisy / tau - (noisy / tau).max())
            soft /= soft.sum()
            expected += soft * (by_code - soft @ by_code) / tau
            count += len(wrong)
    got = grads["speech"]["quantiser"]["scores_bias"][0]
    np.testing.assert_allclose(got, expected / count, rtol=1e-3, atol=1e-6)


def test_a_prediction_has_seen_the_past_only():
    modules, _, params, *_ = cases.built("vq_apc")
    batch, t = cases.load("vq_apc").batch, 9

    @jax.jit
    @jax.grad
    def sensitivity(mel):
        nets = BoundNets(modules, params)
        key = jax.random.key(1)
        output = nets("speech", mel, batch["mel_lengths"], key, method="quantise").output
        return (nets("vq_apc_head", output)[:, t] ** 2).sum()

    seen = np.abs(sensitivity(batch["mel"])).max(-1)
    assert (seen[:, : t + 1] > 0).all()
    np.testing.assert_array_equal(seen[:, t + 1 :], 0)
