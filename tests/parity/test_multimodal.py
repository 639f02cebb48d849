"""CLIP of transformers, read from its file: states, embeddings, logits, loss, gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.folders import Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
END, LENGTH = 49, 9
DRAW = np.random.default_rng(4)
ENDS = np.array([8, 5, 3])
MASK = np.arange(LENGTH) <= ENDS[:, None]
TOKENS = DRAW.integers(6, END, (3, LENGTH)).astype(np.int32)
TOKENS[np.arange(3), ENDS] = END
IMAGES = DRAW.uniform(size=(3, 16, 16, 3)).astype(np.float32)


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def test_clip(tmp_path):
    config = transformers.CLIPConfig(
        text_config=SIZES
        | {"vocab_size": END + 1, "max_position_embeddings": 10, "eos_token_id": END},
        vision_config=SIZES | {"image_size": 16, "patch_size": 4},
        projection_dim=12,
        attn_implementation="eager",
    )
    pair = Pair(transformers.CLIPModel, config, tmp_path)
    assert set(pair.modules) == {"text", "image", "text_projection", "image_projection", "scale"}

    def loss(params):
        text = pair.apply("text", params, TOKENS, MASK)
        image = pair.apply("image", params, IMAGES)
        ended = text.tokens[jnp.arange(3), ENDS]
        texts = unit(pair.apply("text_projection", params, ended))
        images = unit(pair.apply("image_projection", params, image.tokens[:, 0]))
        logits = pair.apply("scale", params) * texts @ images.T
        diagonal = jnp.arange(3)
        both = [-jax.nn.log_softmax(x)[diagonal, diagonal].mean() for x in (logits, logits.T)]
        return sum(both) / 2, (text, image, texts, images, logits)

    value, (text, image, texts, images, logits), gradients = value_and_gradients(loss, pair.params)
    vit = pair.modules["image"]
    pixels = (IMAGES - np.array(vit.mean)) / np.array(vit.deviation)
    out = pair.theirs(
        input_ids=tensor(TOKENS).long(),
        attention_mask=tensor(MASK.astype(np.int64)),
        pixel_values=tensor(pixels.transpose(0, 3, 1, 2).astype(np.float32)),
        return_loss=True,
        output_hidden_states=True,
    )
    out.loss.backward()
    for i, theirs in enumerate(out.text_model_output.hidden_states):
        assert_close(text.layers[i], theirs.detach(), MASK, what=f"text layer {i}")
    for i, theirs in enumerate(out.vision_model_output.hidden_states):
        assert_close(image.layers[i], theirs.detach(), what=f"image layer {i}")
    assert_close(texts, out.text_embeds.detach(), what="texts")
    assert_close(images, out.image_embeds.detach(), what="images")
    assert_close(logits, out.logits_per_text.detach(), what="logits")
    assert_close(value, out.loss.item())
    gradients["image"].pop("mask_token")  # which nothing of theirs is
    assert_gradients_close(gradients, pair.gradients())
