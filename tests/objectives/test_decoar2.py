"""DeCoAR 2.0 against loops over frames and groups, given the same spans and noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.training.nets import BoundNets
from tests import case as cases

STEP = 100_000  # the Gumbel temperature has moved: 2 * 0.999995**100000 = 1.213


@functools.cache
def runner():
    """Jitted (params, mel) -> the loss, and what the networks and the draws gave on the way to it."""
    modules, objective, *_ = cases.built("decoar2")
    lengths = cases.load("decoar2").batch["mel_lengths"]
    rng = jax.random.key(7)

    @jax.jit
    def run(params, mel):
        nets = BoundNets(modules, params, step=STEP)
        batch = {"mel": mel, "mel_lengths": lengths}
        loss = objective.loss(nets, batch, None, rng)
        latents, real = nets("speech", *batch.values(), method="features")
        masked = span_mask(
            fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=0.65, span=3, at_least=1
        )
        states = nets("speech", latents, real, masked, method="contextualise").tokens
        temperature = jnp.float32(2 * 0.999995**STEP)
        codes = nets("quantiser", states, fold_name(rng, "gumbel"), temperature)
        predicted = nets("decoar2_head", codes.vectors)
        return loss, (real, masked, predicted, codes.probabilities, codes.indices)

    return run


def test_loss_is_the_papers():
    params, batch = cases.built("decoar2")[2], cases.load("decoar2").batch
    loss, rest = runner()(params, batch["mel"])
    real, masked, predicted, probabilities, indices = (np.asarray(x) for x in rest)
    errors = []
    for b, n in enumerate(batch["mel_lengths"]):
        for frame in range(n):
            token, place = divmod(frame, 2)
            if masked[b, token]:
                y = predicted[b, token, 16 * place : 16 * place + 16]
                errors.extend(np.abs(batch["mel"][b, frame] - y))
    assert 0 < len(errors) < batch["mel_lengths"].sum() * 16
    perplexities = []
    for g in range(2):
        share = probabilities[masked][:, g].mean(0)
        perplexities.append(np.exp(-(share * np.log(share)).sum()))
    diversity = (2 * 6 - sum(perplexities)) / (2 * 6)
    np.testing.assert_allclose(loss.value, np.mean(errors) + 0.1 * diversity, rtol=1e-5)

    metrics = {k: float(total / count) for k, (total, count) in loss.metrics.items()}
    assert metrics["reconstruction"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert metrics["diversity"] == pytest.approx(diversity, rel=1e-4)
    assert metrics["probability_perplexity"] == pytest.approx(np.mean(perplexities), rel=1e-4)
    assert metrics["gumbel_temperature"] == pytest.approx(1.213, abs=1e-3)
    assert metrics["masked_share"] == pytest.approx(masked.sum() / real.sum(), rel=1e-5)
    used = []
    for column in indices[masked].T:
        share = np.bincount(column, minlength=6) / len(column)
        used.append(2 ** -sum(p * np.log2(p) for p in share if p > 0))
    assert metrics["code_perplexity"] == pytest.approx(np.mean(used), rel=1e-4)


def test_hidden_frames_leave_no_trace_in_the_prediction():
    params, batch = cases.built("decoar2")[2], cases.load("decoar2").batch
    loss, rest = runner()(params, batch["mel"])
    hidden = np.repeat(np.asarray(rest[1]), 2, axis=1)
    other, again = runner()(params, np.where(hidden[..., None], 5.0, batch["mel"]))
    np.testing.assert_array_equal(rest[2], again[2])
    assert abs(other.value - loss.value) > 0.1  # though the targets have changed


def test_errors_say_what_is_wrong():
    modules, objective, params, *_ = cases.built("decoar2")
    modules = {**modules, "decoar2_head": Projection(features=16)}
    params = {**params, "decoar2_head": {"linear": {"kernel": np.ones((8, 16), np.float32)}}}
    with pytest.raises(UserError, match=r"16 tokens for 32 frames, .* 16 numbers per token"):
        jax.eval_shape(
            lambda: objective.loss(
                BoundNets(modules, params), cases.load("decoar2").batch, None, jax.random.key(0)
            )
        )
