"""ViT and MAE of transformers, read from their files: states, logits, loss, gradients."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.ops.random import fold_name
from tests.parity.folders import SIZES, Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close, runner

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

IMAGES = np.random.default_rng(1).uniform(size=(3, 16, 16, 3)).astype(np.float32)
RNG = jax.random.key(2)


def pixels(image):
    """What their processor makes of the pictures: colours first, (x - mean) / deviation."""
    scaled = (IMAGES - np.array(image.mean)) / np.array(image.deviation)
    return tensor(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def assert_states_close(layers, hidden):
    for i, (ours, theirs) in enumerate(zip(layers, hidden, strict=True)):
        assert_close(ours, theirs.detach(), what=f"layer {i}")


@pytest.mark.parametrize("bias", [True, False])
def test_vit(bias, tmp_path):
    """With the classifier, whose loss is the cross-entropy of the class token."""
    config = transformers.ViTConfig(
        **SIZES, image_size=16, patch_size=4, qkv_bias=bias, num_labels=5, output_hidden_states=True
    )
    pair = Pair(transformers.ViTForImageClassification, config, tmp_path)
    labels = np.array([4, 0, 2])

    def loss(params):
        encoded = pair.apply("image", params, IMAGES)
        logits = pair.apply("classifier", params, encoded.tokens[:, 0])
        value = -jax.nn.log_softmax(logits)[np.arange(3), labels].mean()
        return value, (encoded, logits)

    image = pair.modules["image"]
    value, (encoded, logits), gradients = value_and_gradients(loss, pair.params)
    out = pair.theirs(pixels(image), labels=tensor(labels))
    out.loss.backward()
    assert image.mean == (0.5, 0.5, 0.5) and image.style.query_bias == bias
    assert_states_close(encoded.layers, out.hidden_states)
    assert_close(logits, out.logits.detach(), what="logits")
    assert_close(value, out.loss.item())
    theirs = pair.gradients()
    # Ours has a mask token, which nothing here uses.
    assert not np.any(gradients["image"].pop("mask_token", 0))
    assert_gradients_close(gradients, theirs)


@pytest.mark.parametrize("normalised", [True, False])
def test_mae(normalised, tmp_path):
    """Our objective, and theirs with the noise that ours draws."""
    config = transformers.ViTMAEConfig(
        **SIZES,
        image_size=16,
        patch_size=4,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=40,
        mask_ratio=0.75,
        norm_pix_loss=normalised,
        output_hidden_states=True,
    )
    scale = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(str(scale).replace("'", '"'))
    pair = Pair(transformers.ViTMAEForPreTraining, config, tmp_path)
    objective = MaskedAutoencoder(source="stream", patch=4, norm_pixels=normalised)
    ours = runner(pair.modules, objective, RNG)(pair.params, {"image": IMAGES})
    noise = jax.random.uniform(fold_name(RNG, "patches"), (3, 16))
    for place in (
        pair.theirs.vit.embeddings.position_embeddings,
        pair.theirs.decoder.decoder_pos_embed,
    ):
        place.requires_grad = True  # theirs is fixed, and still a parameter of the file
    out = pair.theirs(pixels(pair.modules["image"]), noise=tensor(noise))
    out.loss.backward()
    (encoded,) = ours.calls["trained image call"]
    assert_states_close(encoded.layers, out.hidden_states)
    (predictions,) = ours.calls["trained image_decoder call"]
    assert_close(predictions, out.logits.detach(), what="predictions")
    assert_close(ours.value, out.loss.item())
    ours.gradients["image"].pop("mask_token", None)
    assert_gradients_close(ours.gradients, pair.gradients())


def test_mae_has_the_published_scale(tmp_path):
    config = transformers.ViTMAEConfig(**SIZES, image_size=16, patch_size=8)
    pair = Pair(transformers.ViTMAEModel, config, tmp_path)
    assert set(pair.modules) == {"image"}
    image = pair.modules["image"]
    assert image.mean == (0.485, 0.456, 0.406) and image.deviation == (0.229, 0.224, 0.225)
    noise = np.tile(np.arange(4, dtype=np.float32), (3, 1))
    pair.theirs.config.mask_ratio = 0.0
    theirs = pair.theirs(pixels(image), noise=tensor(noise)).last_hidden_state
    assert_close(pair.apply("image", pair.params, IMAGES).tokens, theirs.detach())
