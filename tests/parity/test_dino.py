"""DINO and DINOv2 of transformers, read from their files, on pictures of another size than usual."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.folders import Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close
from tests.parity.theirs import torch

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

BLOCKS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "attn_implementation": "eager",
    "output_hidden_states": True,
}
DRAW = np.random.default_rng(1)
# Theirs leaves out the pixels behind the last whole patch.
PICTURES = DRAW.uniform(size=(2, 15, 26, 3)).astype(np.float32)
WHOLE = PICTURES[:, :12, :24]
MASKED = DRAW.uniform(size=(2, 18)) < 0.4
LABELS = np.array([4, 1])


@pytest.mark.parametrize("variant", ["dino", "dinov2", "gated", "registers"])
def test_states_and_gradients(variant, tmp_path):
    """Every layer; for DINOv2 with the classifier's loss too; half of the patches masked."""
    registers = 3 if variant == "registers" else 0
    if variant == "dino":
        config = transformers.ViTConfig(**BLOCKS, intermediate_size=24)
        pair = Pair(lambda config: transformers.ViTModel(config, False, True), config, tmp_path)
        backbone = pair.theirs
    elif registers:
        config = transformers.Dinov2WithRegistersConfig(
            **BLOCKS, mlp_ratio=2, num_labels=5, num_register_tokens=registers
        )
        kind = transformers.Dinov2WithRegistersForImageClassification
        pair = Pair(kind, config, tmp_path)
        backbone = pair.theirs.dinov2_with_registers
    else:
        config = transformers.Dinov2Config(
            **BLOCKS, mlp_ratio=2, num_labels=5, use_swiglu_ffn=variant == "gated"
        )
        pair = Pair(transformers.Dinov2ForImageClassification, config, tmp_path)
        backbone = pair.theirs.dinov2
    weights = DRAW.normal(size=(2, 19, 16)).astype(np.float32)

    def loss(params):
        encoded = pair.apply("image", params, WHOLE, MASKED)
        value, logits = (encoded.tokens * weights).mean(), None
        if "classifier" in params:
            pooled = [encoded.tokens[:, 0], encoded.tokens[:, 1:].mean(1)]
            logits = pair.apply("classifier", params, jnp.concatenate(pooled, -1))
            value -= jax.nn.log_softmax(logits)[np.arange(2), LABELS].mean()
        return value, (encoded, logits)

    value, (encoded, logits), gradients = value_and_gradients(loss, pair.params)
    image = pair.modules["image"]
    scaled = (PICTURES - np.array(image.mean)) / np.array(image.deviation)
    pixels = tensor(scaled.transpose(0, 3, 1, 2).astype(np.float32))
    also = {"interpolate_pos_encoding": True} if variant == "dino" else {}
    out = backbone(pixels, bool_masked_pos=tensor(MASKED), **also)

    def seen(states):  # ours gives away no registers
        return torch.cat([states[:, :1], states[:, 1 + registers :]], dim=1)

    states = seen(out.last_hidden_state)
    theirs = (states * tensor(weights)).mean()
    if logits is not None:
        pooled = torch.cat([states[:, 0], states[:, 1:].mean(1)], dim=1)
        expected = pair.theirs.classifier(pooled)
        theirs = theirs + torch.nn.functional.cross_entropy(expected, tensor(LABELS))
        assert_close(logits, expected.detach(), what="logits")
    theirs.backward()
    assert len(encoded.layers) == len(out.hidden_states) == 3
    for i, (ours, of) in enumerate(zip(encoded.layers, out.hidden_states, strict=True)):
        assert_close(ours, seen(of).detach(), what=f"layer {i}")
    assert_close(encoded.tokens, states.detach(), what="tokens")
    assert_close(value, theirs.item())
    assert_gradients_close(gradients, pair.gradients())
