"""The masked autoencoder against the paper's formula in NumPy loops."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from tests import case as cases

PATCH, COUNT = 4, 16


class FakeNets:
    """Networks that give fixed numbers and remember which patches were kept."""

    step = jnp.int32(0)

    def __init__(self, batch, count=COUNT, rate=4.0):
        rng = np.random.default_rng(5)
        self.predictions = rng.normal(size=(batch, count, 3 * PATCH**2)).astype(np.float32)
        self.keep, self.rate = None, rate

    def __call__(self, name, *args, **kwargs):
        if name == "image":
            self.keep = np.asarray(kwargs["keep"])
            tokens = jnp.asarray(np.random.default_rng(6).normal(size=(*self.keep.shape, 4)))
            mask = jnp.ones(self.keep.shape, bool)
            return SimpleNamespace(tokens=tokens, mask=mask, rate=self.rate)
        np.testing.assert_array_equal(args[1], self.keep)
        return jnp.asarray(self.predictions)


def images_of(batch=3, seed=0):
    return np.random.default_rng(seed).uniform(size=(batch, 16, 16, 3)).astype(np.float32)


def patch_of(image, n):
    row, column = divmod(n, 4)
    return image[PATCH * row : PATCH * row + PATCH, PATCH * column : PATCH * column + PATCH]


def reference(images, predictions, keep, norm_pixels, present):
    errors = []
    for b in range(len(images)):
        for n in range(COUNT):
            if n in keep[b] or not present[b]:
                continue
            pixels = 2 * patch_of(images[b], n).astype(np.float64).reshape(-1) - 1
            if norm_pixels:
                mean = pixels.sum() / len(pixels)
                variance = ((pixels - mean) ** 2).sum() / (len(pixels) - 1)
                pixels = (pixels - mean) / np.sqrt(variance + 1e-6)
            errors.append(np.mean((predictions[b, n] - pixels) ** 2))
    return np.mean(errors)


@pytest.mark.parametrize("norm_pixels", [True, False])
@pytest.mark.parametrize("present", [(True, True, True), (True, False, True)])
def test_loss_is_the_formula(norm_pixels, present):
    images, nets = images_of(), FakeNets(3)
    objective = MaskedAutoencoder(
        source="s", patch=PATCH, norm_pixels=norm_pixels, present="has_image"
    )
    batch = {"image": jnp.asarray(images), "has_image": jnp.array(present)}
    loss = objective.loss(nets, batch, None, jax.random.key(3))
    expected = reference(images, nets.predictions, nets.keep, norm_pixels, present)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    if all(present):
        alone = MaskedAutoencoder(source="s", patch=PATCH, norm_pixels=norm_pixels)
        got = alone.loss(nets, {"image": images}, None, jax.random.key(3)).value
        np.testing.assert_array_equal(got, loss.value)


@pytest.mark.parametrize("rate, kept", [(0.75, 4), (0.6, 6), (0.9, 2), (0.99, 1)])
def test_how_many_patches_are_kept(rate, kept):
    nets = FakeNets(3)
    objective = MaskedAutoencoder(source="s", patch=PATCH, rate=rate)
    objective.loss(nets, {"image": images_of()}, None, jax.random.key(0))
    assert nets.keep.shape == (3, kept)
    assert all(len(set(row)) == kept for row in nets.keep)
    first = nets.keep
    objective.loss(nets, {"image": images_of()}, None, jax.random.key(1))
    assert (first != nets.keep).any()


def test_nothing_masked_gives_zero():
    objective = MaskedAutoencoder(source="s", patch=PATCH, rate=0.0)
    assert objective.loss(FakeNets(3), {"image": images_of()}, None, jax.random.key(0)).value == 0


def test_the_encoder_sees_the_kept_patches_only():
    modules, _, params, *_ = cases.built("mae")
    images = jnp.asarray(cases.load("mae").batch["image"])
    keep = jnp.asarray([[0, 5, 10, 15]] * len(images))

    def tokens(images):
        return modules["image"].apply({"params": params["image"]}, images, keep=keep).tokens

    _, pull = jax.vjp(tokens, images)
    (sees,) = pull(jnp.ones((len(images), 5, 16)) * jnp.arange(16.0))
    for n in range(COUNT):
        seen = np.abs(patch_of(np.asarray(sees[0]), n)).max() > 0
        assert seen == (n in (0, 5, 10, 15))


@pytest.mark.parametrize("norm_pixels", [True, False])
def test_reconstruction_of_perfect_predictions_is_the_picture(norm_pixels):
    images, nets = images_of(), FakeNets(3)
    objective = MaskedAutoencoder(source="s", patch=PATCH, norm_pixels=norm_pixels)
    for b in range(3):
        for n in range(COUNT):
            pixels = 2 * patch_of(images[b], n).reshape(-1) - 1
            if norm_pixels:
                pixels = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            nets.predictions[b, n] = pixels
    masked, drawn = objective.reconstruct(nets, jnp.asarray(images), jax.random.key(2))
    np.testing.assert_allclose(drawn, images, atol=1e-5)
    for b in range(3):
        for n in range(COUNT):
            expected = patch_of(images[b], n) if n in nets.keep[b] else 0.5
            np.testing.assert_array_equal(
                patch_of(np.asarray(masked[b]), n), np.broadcast_to(expected, (PATCH, PATCH, 3))
            )
    nets.predictions += 1
    _, wrong = objective.reconstruct(nets, jnp.asarray(images), jax.random.key(2))
    for b in range(3):
        for n in range(COUNT):
            same = np.array_equal(patch_of(np.asarray(wrong[b]), n), patch_of(images[b], n))
            assert same == (n in nets.keep[b])


def test_networks_with_another_patch_are_refused():
    objective = MaskedAutoencoder(source="s", patch=PATCH)
    for nets in (FakeNets(3, rate=8.0), FakeNets(3, count=15)):
        with pytest.raises(UserError, match="patch=4"):
            objective.loss(nets, {"image": images_of()}, None, jax.random.key(0))
