"""The dVAE: density, divergence and relaxation in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.vision.dvae import DiscreteVAE
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import value_at
from tests import case as cases
from tests.fakes import FakeNets

CODES = 7
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(4, 8, 8, 3)).astype(np.float32)
LOGITS = RNG.normal(scale=2.0, size=(4, 2, 2, CODES)).astype(np.float32)
PRESENT = np.array([True, False, True, True])
BATCH = {"image": jnp.asarray(IMAGES), "has_image": jnp.asarray(PRESENT)}
OBJECTIVE = DiscreteVAE(source="s", present="has_image", temperature=0.4, divergence=6.6)


def outputs_of(values):
    return np.random.default_rng(1).normal(size=(4, 8, 8, values)).astype(np.float32)


def nets(outputs):
    return FakeNets(
        image_tokeniser=lambda images, rng, temperature: (jnp.asarray(LOGITS), jnp.asarray(outputs))
    )


def error_of(x, out, c, laplace):
    if not laplace:
        return (out[c] - (2 * x - 1)) ** 2
    x, b = 0.8 * x + 0.1, np.exp(out[3 + c])
    return -np.log(np.exp(-abs(np.log(x / (1 - x)) - out[c]) / b) / (2 * b * x * (1 - x)))


@pytest.mark.parametrize("reconstruction", ["logit_laplace", "mse"])
def test_loss_is_the_bound_divided_by_the_values_of_a_picture(reconstruction):
    laplace = reconstruction == "logit_laplace"
    outputs = outputs_of(6 if laplace else 3)
    objective = dataclasses.replace(OBJECTIVE, reconstruction=reconstruction)
    fake = nets(outputs)

    @jax.jit
    def run():
        loss = objective.loss(fake, BATCH, None, jax.random.key(3))
        (_, rng, temperature), _ = fake.asked("image_tokeniser")
        own = fold_name(jax.random.key(3), "gumbel")
        return loss, temperature, jax.random.key_data(rng) == jax.random.key_data(own)

    loss, temperature, same_key = run()
    totals, divergences, chosen = [], [], []
    for b in np.flatnonzero(PRESENT):
        error = sum(
            error_of(float(IMAGES[b, i, j, c]), outputs[b, i, j].astype(float), c, laplace)
            for i, j, c in np.ndindex(8, 8, 3)
        )
        divergence = 0.0
        for i, j in np.ndindex(2, 2):
            q = np.exp(LOGITS[b, i, j].astype(float))
            q /= q.sum()
            divergence += sum(p * np.log(p / (1 / CODES)) for p in q)
            chosen.append(q.argmax())
        totals.append((error + 6.6 * divergence) / (8 * 8 * 3))
        divergences.append(divergence / 4)
    np.testing.assert_allclose(loss.value, np.mean(totals), rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["divergence"][0], np.mean(divergences), rtol=1e-5)
    assert loss.metrics["codes_unused"][0] == pytest.approx(1 - len(set(chosen)) / CODES)
    assert temperature == np.float32(0.4) and same_key.all()


def test_defaults_are_the_paper_s_schedules():
    objective = DiscreteVAE(source="s")
    at = lambda value, step: float(value_at(value, jnp.int32(step)))  # noqa: E731
    assert at(objective.temperature, 0) == 1 and at(objective.temperature, 150_000) == 1 / 16
    assert at(objective.temperature, 75_000) == pytest.approx((1 + 1 / 16) / 2)
    assert at(objective.divergence, 0) == 0
    assert at(objective.divergence, 5_000) == at(objective.divergence, 9_000) == np.float32(6.6)


def test_the_decoder_reads_the_relaxed_mixture():
    modules, _, params, *_ = cases.built("dvae")
    network, params = modules["image_tokeniser"], params["image_tokeniser"]
    images = cases.load("dvae").batch["image"]
    key = jax.random.key(4)

    @jax.jit
    def run():
        logits, outputs = network.apply({"params": params}, images, key, 0.7)
        return logits, outputs, jax.random.gumbel(key, logits.shape)

    logits, outputs, noise = run()
    scores = (np.asarray(logits, np.float64) + noise) / 0.7
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixture = jnp.asarray(weights @ np.asarray(params["code_embedding"]), jnp.float32)
    again = jax.jit(
        lambda: network.apply({"params": params}, mixture, method=lambda m, x: m.decoder(x)[1])
    )()
    np.testing.assert_allclose(outputs, again, rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_part():
    _, _, params, teachers, _ = cases.built("dvae")
    _, (grads, _) = cases.gradients("dvae")(params, teachers, cases.load("dvae").batch)
    assert set(grads["image_tokeniser"]) == {"encoder", "scores", "code_embedding", "decoder"}
    for part, tree in grads["image_tokeniser"].items():
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(tree)), part


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="gives 3 values per pixel, wanted 6"):
        OBJECTIVE.loss(nets(outputs_of(3)), BATCH, None, jax.random.key(0))
    with pytest.raises(UserError, match="did you mean 'mse'"):
        dataclasses.replace(OBJECTIVE, reconstruction="mes")
