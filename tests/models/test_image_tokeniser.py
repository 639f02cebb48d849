"""Tokenisers: shapes, nearest entries, what gradients reach, and one way there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from taichu_jax.models.image_tokeniser import LAST, GumbelTokeniser, VQTokeniser
from taichu_jax.models.patch_discriminator import PatchDiscriminator

SIZES = {"entries": 24, "dim": 6, "widths": (8, 16), "blocks": 1, "groups": 4}
IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def vector():
    """(network, params, what it makes of the pictures, gradients of a function of the pixels)."""
    network = VQTokeniser(**SIZES)

    def made(params, images):
        result = network.apply({"params": params}, images)
        return (result.pixels * jnp.arange(3.0)).sum(), result

    def everything():
        params = network.init(jax.random.key(0), IMAGES)["params"]
        # Entries of the latents' size, so that several of them are chosen.
        book = jax.random.normal(jax.random.key(1), params["code_embedding"].shape)
        params = params | {"code_embedding": book}
        grads, result = jax.grad(made, (0, 1), has_aux=True)(params, jnp.asarray(IMAGES))
        codes = network.apply({"params": params}, IMAGES, method="codes")
        drawn = network.apply({"params": params}, codes, method="decode")
        return params, result, grads, codes, drawn

    return network, *jax.jit(everything)()


def test_codes_are_the_nearest_entries_and_draw_the_same_picture(vector):
    network, params, made, _, codes, drawn = vector
    assert network.shrink == 4 and codes.shape == (3, 4, 6) and codes.dtype == jnp.int32
    book = np.asarray(params["code_embedding"])
    for place in np.ndindex(codes.shape):
        distances = np.square(np.asarray(made.latents)[place] - book).sum(-1)
        assert codes[place] == made.codes[place] == distances.argmin()
        np.testing.assert_allclose(made.nearest[place], book[codes[place]], rtol=1e-6)
    assert len(np.unique(codes)) > 3
    np.testing.assert_allclose(drawn, np.clip(made.pixels / 2 + 0.5, 0, 1), atol=1e-5)


def test_gradients_pass_straight_through_and_leave_the_codebook(vector):
    network, params, made, (grads, to_images), *_ = vector
    assert not np.asarray(grads["code_embedding"]).any()
    for part in ("encoder", "latent", "decoder"):
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads[part])), part

    # Straight through: the decoder's gradient at the entries is the encoder's at its latents.
    def decoded(entries):
        pixels = network.apply({"params": params}, entries, method=lambda m, e: m.decoder(e)[1])
        return (pixels * jnp.arange(3.0)).sum()

    def encoded(images):
        return network.apply({"params": params}, images, method="encode")

    @jax.jit
    def by_hand():
        at_entries = jax.grad(decoded)(made.nearest)
        return jax.vjp(encoded, jnp.asarray(IMAGES))[1](at_entries)[0]

    np.testing.assert_allclose(to_images, by_hand(), rtol=1e-4, atol=1e-5)


def test_the_last_layer_is_a_convolution_of_the_features(vector):
    _, params, made, *_ = vector
    last = nn.Conv(3, (LAST, LAST))
    pixels = last.apply({"params": params["decoder"]["last"]}, made.features)
    np.testing.assert_allclose(made.pixels, pixels, atol=1e-5)


def test_methods_create_only_what_they_use_and_agree():
    network = VQTokeniser(**SIZES)

    def init(method, argument):
        return network.init(jax.random.key(0), argument, method=method)["params"]

    whole = jax.jit(lambda: init("__call__", IMAGES))()
    there = jax.jit(lambda: init("codes", IMAGES))()
    back = jax.jit(lambda: init("decode", jnp.zeros((1, 4, 4), jnp.int32)))()
    assert set(there) == {"encoder", "latent", "code_embedding"}
    assert set(back) == {"decoder", "code_embedding"}
    jax.tree.map(np.testing.assert_array_equal, there | back, whole)


@pytest.mark.parametrize("scales", [True, False])
def test_gumbel_tokeniser(scales):
    network = GumbelTokeniser(**SIZES, scales=scales)

    @jax.jit
    def everything():
        params = network.init(jax.random.key(0), IMAGES, jax.random.key(1), 1.0)["params"]
        bound = network.bind({"params": params})
        cold = bound(IMAGES, jax.random.key(2), 1e-4)
        logits = bound.encode(IMAGES)
        noisy = (logits + jax.random.gumbel(jax.random.key(2), logits.shape)).argmax(-1)
        return cold, logits, bound.codes(IMAGES), bound.decode(noisy)

    (logits, outputs), again, codes, drawn = everything()
    assert outputs.shape == (3, 16, 24, 6 if scales else 3) and logits.shape == (3, 4, 6, 24)
    np.testing.assert_array_equal(codes, again.argmax(-1))
    # At a temperature near 0 the mixture is the entry with the largest noisy score.
    outputs = np.asarray(outputs, np.float64)[..., :3]
    pixels = (1 / (1 + np.exp(-outputs)) - 0.1) / 0.8 if scales else outputs / 2 + 0.5
    np.testing.assert_allclose(drawn, np.clip(pixels, 0, 1), atol=1e-4)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shrink by 4"):
        VQTokeniser(**SIZES).init(jax.random.key(0), IMAGES[:, :14])


def test_discriminator_scores_patches_of_one_picture_each():
    network = PatchDiscriminator(widths=(8, 8), groups=4)

    @jax.jit
    def scores(images):
        params = network.init(jax.random.key(0), images)
        return network.apply(params, images)

    whole = scores(IMAGES)
    assert whole.shape == (3, 4, 6)
    other = scores(np.concatenate([IMAGES[:1], 1 - IMAGES[1:]]))
    np.testing.assert_allclose(other[0], whole[0], atol=1e-5)
    assert np.abs(other[1] - whole[1]).max() > 1e-3
