"""HiFi-GAN's losses against loops over discriminators and layers, and who learns from which."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build
from taichu_jax.data import audio as data
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.segments import random_starts
from taichu_jax.training.nets import BoundNets
from tests import case as cases

RNG, FRAMES, HOP = jax.random.key(4), 4, 160
OBJECTIVE = dataclasses.replace(
    build(cases.load("hifi_gan").objective), adversarial=0.7, feature_matching=1.5, mel=3.0
)


@functools.cache
def batch():
    """The case's, quieter, with an absent row and one that is shorter than a segment."""
    batch = {k: v.copy() for k, v in cases.load("hifi_gan").batch.items()}
    batch["audio"] *= 0.2
    batch["audio_lengths"][:2] = 0, 500
    batch["audio"][:2, 500:] = np.nan
    return batch


def loss(params, objective=OBJECTIVE):
    nets = BoundNets(cases.built("hifi_gan")[0], params, step=5)
    return objective.loss(nets, batch(), None, RNG)


@jax.jit
def everything(params):
    """(loss, its gradients, what a loop needs)."""
    (value, metrics), gradients = jax.value_and_grad(lambda p: loss(p)[:2], has_aux=True)(params)
    starts = random_starts(fold_name(RNG, "start"), batch()["audio_lengths"] // HOP, FRAMES)
    return value, metrics, gradients, starts


def segments(starts):
    """(samples [8, 640], frames of the whole recording's spectrogram [8, 5, 12])."""
    real, given = (
        np.zeros((8, FRAMES * HOP), np.float32),
        np.full((8, FRAMES + 1, 12), np.log(1e-6)),
    )
    for b, (start, length) in enumerate(zip(starts, batch()["audio_lengths"], strict=True)):
        if length:
            wave = batch()["audio"][b, :length]
            part = wave[start * HOP : (start + FRAMES) * HOP]
            real[b, : len(part)] = part
            padded = np.pad(wave, (0, HOP * FRAMES))
            given[b] = data.log_mel(padded, 12)[start : start + FRAMES + 1]
    return real, given.astype(np.float32)


def test_every_loss_is_the_papers():
    modules, _, params, *_ = cases.built("hifi_gan")
    value, metrics, _, starts = everything(params)
    starts = np.asarray(starts)
    assert len(set(starts.tolist())) > 1 and starts[1] == 0
    real, given = segments(starts)

    @jax.jit
    def networks(params, given, real):
        nets = BoundNets(modules, params)
        made = nets("vocoder", given)
        return made, nets("discriminators", real), nets("discriminators", made)

    made, of_real, of_made = jax.tree.map(np.asarray, networks(params, given, real))
    rows = np.arange(8) != 0
    caught = fooled = matching = 0.0
    for r, f in zip(of_real, of_made, strict=True):
        caught += np.mean((r.score[rows] - 1) ** 2) + np.mean(f.score[rows] ** 2)
        fooled += np.mean((f.score[rows] - 1) ** 2)
        for x, y in zip(r.features, f.features, strict=True):
            matching += np.mean(np.abs(x[rows] - y[rows]))
    mel = np.mean(
        [np.abs(data.log_mel(real[b], 12) - data.log_mel(made[b], 12)).mean() for b in range(1, 8)]
    )
    expected = caught + 0.7 * fooled + 1.5 * matching + 3.0 * mel
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for name, term in (
        ("mel_error", mel),
        ("discriminators", caught),
        ("adversarial", fooled),
        ("feature_matching", matching),
        ("score_of_real", np.mean([r.score[rows].mean() for r in of_real])),
    ):
        total, count = metrics[name]
        assert float(total / count) == pytest.approx(float(term), rel=1e-4), name


def test_each_side_learns_from_its_own_loss_alone():
    modules, _, params, *_ = cases.built("hifi_gan")
    _, _, gradients, starts = everything(params)
    real, given = segments(np.asarray(starts))
    rows = np.arange(8) != 0

    def of(x):
        return jnp.mean(x[rows])

    @jax.jit
    def discriminators(params):
        nets = BoundNets(modules, params)
        made = nets("vocoder", given)
        return sum(
            of((r.score - 1) ** 2) + of(f.score**2)
            for r, f in zip(nets("discriminators", real), nets("discriminators", made), strict=True)
        )

    expected = jax.jit(jax.grad(discriminators))(params)["discriminators"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        gradients["discriminators"],
        expected,
    )

    def generator(ours):
        nets = BoundNets(modules, params | {"vocoder": ours})
        still = BoundNets(modules, params)
        made = nets("vocoder", given)
        judged = zip(still("discriminators", real), still("discriminators", made), strict=True)
        total = 0.0
        for r, f in judged:
            total += 0.7 * of((f.score - 1) ** 2)
            total += 1.5 * sum(of(abs(x - y)) for x, y in zip(r.features, f.features, strict=True))
        return total

    without = dataclasses.replace(OBJECTIVE, mel=0.0)
    found, expected = jax.jit(
        lambda p: (jax.grad(lambda q: loss(q, without).value)(p), jax.grad(generator)(p["vocoder"]))
    )(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        found["vocoder"],
        expected,
    )
