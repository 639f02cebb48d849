"""VQGAN: every term in NumPy loops, the adaptive weight, and who learns from which loss."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from taichu_jax.models.image_tokeniser import Tokenised
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.vision.vqgan import VQGAN
from taichu_jax.training.nets import BoundNets
from tests import case as cases
from tests.fakes import FakeNets

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 8, 8, 3)).astype(np.float32)
PIXELS = RNG.normal(size=IMAGES.shape).astype(np.float32)
BOOK = RNG.normal(size=(5, 3)).astype(np.float32)
LATENTS = RNG.normal(size=(3, 2, 2, 3)).astype(np.float32)
CODES = np.square(LATENTS[..., None, :] - BOOK).sum(-1).argmin(-1)
PRESENT = np.array([True, False, True])
BATCH = {"image": jnp.asarray(IMAGES), "has_image": jnp.asarray(PRESENT)}
OBJECTIVE = VQGAN(
    source="s", present="has_image", entries=5, dim=3, decay=None, adaptive=False, start=10
)


class Nets(FakeNets):
    """The same functions for trained and frozen weights."""

    frozen = FakeNets.__call__


def scores_of(pixels):
    return pixels[:, ::4, ::4].sum(-1) * 1.5


def states_of(images):
    return SimpleNamespace(layers=(images.reshape(len(images), 16, -1), 1 + images[:, 0, :4]))


def nets(step):
    made = Tokenised(
        *(jnp.asarray(x) for x in (LATENTS, CODES, BOOK[CODES])), None, jnp.asarray(PIXELS)
    )
    result = Nets(
        image_tokeniser=lambda images: made,
        image_tokeniser__codebook=lambda: jnp.asarray(BOOK),
        discriminator=scores_of,
        features=states_of,
    )
    result.step = jnp.int32(step)
    return result


def reference(perceptual):
    """(likeness, penalty, generator, discriminator), means over the pictures that are there."""
    parts = []
    for b in np.flatnonzero(PRESENT):
        real, drawn = 2.0 * IMAGES[b] - 1, PIXELS[b].astype(float)
        likeness = np.mean([abs(drawn[p] - real[p]) for p in np.ndindex(8, 8, 3)])
        if perceptual:
            distances = []
            pairs = (states_of(x[None]).layers for x in (IMAGES[b].astype(float), drawn / 2 + 0.5))
            for u, v in zip(*pairs, strict=True):
                u, v = (x[0] / np.linalg.norm(x[0], axis=-1, keepdims=True) for x in (u, v))
                distances.append(np.mean([sum((a - c) ** 2) for a, c in zip(u, v, strict=True)]))
            likeness += 0.5 * np.mean(distances)
        penalty = 1.25 * np.square(LATENTS[b] - BOOK[CODES[b]]).mean()
        right, wrong = scores_of(real[None]).reshape(-1), scores_of(drawn[None]).reshape(-1)
        hinges = [max(0, 1 - s) for s in right], [max(0, 1 + s) for s in wrong]
        parts.append((likeness, penalty, -wrong.mean(), sum(map(np.mean, hinges)) / 2))
    return np.mean(parts, 0)


@pytest.mark.parametrize("perceptual", [None, "features"])
@pytest.mark.parametrize("step", [9, 10])
def test_loss_is_the_formula(perceptual, step):
    objective = dataclasses.replace(OBJECTIVE, perceptual=perceptual, perceptual_weight=0.5)
    loss = jax.jit(lambda: objective.loss(nets(step), BATCH, None, jax.random.key(0)))()
    likeness, penalty, generator, discriminator = reference(perceptual)
    expected = likeness + penalty
    if step >= 10:
        expected += 0.8 * generator + discriminator
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["generator"][0], generator, rtol=1e-5)
    np.testing.assert_allclose(loss.metrics["discriminator"][0], discriminator, rtol=1e-5)


def test_each_player_learns_from_its_own_losses_only_and_the_weight_is_that_of_the_last_kernel():
    """Gradients against those of the losses written apart, with the weight from the real kernel."""
    modules, objective, params, teachers, _ = cases.built("vqgan")
    assert objective.adaptive and objective.start == 0
    batch = cases.load("vqgan").batch
    images, present = jnp.asarray(batch["image"]), jnp.asarray(batch["has_image"])
    _, (grads, _) = cases.gradients("vqgan")(params, teachers, batch)

    def mean(values):
        return values.reshape(len(values), -1).mean(-1) @ present / present.sum()

    def made(weights):
        return modules["image_tokeniser"].apply({"params": weights}, images)

    def scores(weights, pixels):
        return modules["discriminator"].apply({"params": weights}, pixels)

    def likeness(weights):
        return mean(jnp.abs(made(weights).pixels - (2 * images - 1)))

    def deceit(weights):
        return mean(-scores(params["discriminator"], made(weights).pixels))

    def generator(weights):
        at_kernel = [
            jnp.linalg.norm(jax.grad(part)(weights)["decoder"]["last"]["kernel"])
            for part in (likeness, deceit)
        ]
        weight = jax.lax.stop_gradient(0.8 * at_kernel[0] / (at_kernel[1] + 1e-6))
        result, still = made(weights), jax.lax.stop_gradient
        penalty = 0.25 * mean((result.latents - still(result.nearest)) ** 2)
        penalty += mean((still(result.latents) - result.nearest) ** 2)
        return likeness(weights) + penalty + weight * deceit(weights), weight

    def discriminator(weights):
        drawn = made(params["image_tokeniser"]).pixels
        right = jax.nn.relu(1 - scores(weights, 2 * images - 1))
        return mean(right + jax.nn.relu(1 + scores(weights, drawn))) / 2

    @jax.jit
    def by_hand():
        grads, weight = jax.grad(generator, has_aux=True)(params["image_tokeniser"])
        loss = objective.loss(BoundNets(modules, params), batch, None, jax.random.key(0))
        told = loss.metrics["adversary_weight"][0]
        expected = {
            "image_tokeniser": grads,
            "discriminator": jax.grad(discriminator)(params["discriminator"]),
        }
        return expected, weight, told

    expected, weight, told = by_hand()
    np.testing.assert_allclose(told, weight, rtol=1e-4)
    assert abs(told - 0.8) > 0.01  # lambda is not 1 by chance
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), grads, expected
    )


class Features(nn.Module):
    """One linear layer on patches of four rows, as an image encoder."""

    @nn.compact
    def __call__(self, images):
        tokens = nn.Dense(5)(images.reshape(len(images), 4, -1))
        return Encoded(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool), layers=(tokens,))


def test_the_network_that_compares_is_looked_through_but_does_not_learn():
    modules, objective, params, *_ = cases.built("vqgan")
    batch = {k: jnp.asarray(v) for k, v in cases.load("vqgan").batch.items()}
    objective = dataclasses.replace(
        objective, perceptual="features", adversary=0.0, adaptive=False, perceptual_weight=50.0
    )
    modules = modules | {"features": Features()}

    @jax.jit
    def gradients():
        own = Features().init(jax.random.key(0), batch["image"])["params"]

        def value(params, weight):
            changed = dataclasses.replace(objective, perceptual_weight=weight)
            nets = BoundNets(modules, params)
            return changed.loss(nets, batch, None, jax.random.key(0)).value

        return [jax.grad(value)(params | {"features": own}, w) for w in (0.0, 50.0)]

    without, with_it = gradients()
    assert all(not np.asarray(g).any() for g in jax.tree.leaves(with_it["features"]))
    kernel = lambda grads: grads["image_tokeniser"]["encoder"]["shrink_0"]["kernel"]  # noqa: E731
    assert np.abs(kernel(with_it) - kernel(without)).max() > 1e-4
