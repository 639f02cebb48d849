"""BEiT and data2vec for vision of transformers, read from their files, on pictures of another size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.objectives.vision.beit import BEiT
from tests.parity.folders import Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close, runner

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

BLOCKS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 4,
    "drop_path_rate": 0.0,
    "use_absolute_position_embeddings": True,
    "attn_implementation": "eager",
    "output_hidden_states": True,
}
DRAW = np.random.default_rng(1)
PICTURES = DRAW.uniform(size=(2, 12, 24, 3)).astype(np.float32)
PIXELS = tensor((2 * PICTURES - 1).transpose(0, 3, 1, 2))
LABELS, CODES = np.array([4, 1]), 11
RNG = jax.random.key(3)


def assert_states_close(encoded, out):
    assert len(encoded.layers) == len(out.hidden_states) == 3
    for i, (ours, theirs) in enumerate(zip(encoded.layers, out.hidden_states, strict=True)):
        assert_close(ours, theirs.detach(), what=f"layer {i}")


def test_masked_image_modelling(tmp_path):
    """Our objective; theirs with its mask and the codes of its tokeniser. A table for every block."""
    config = transformers.BeitConfig(
        **BLOCKS, vocab_size=CODES, use_mask_token=True, use_relative_position_bias=True
    )
    pair = Pair(transformers.BeitForMaskedImageModeling, config, tmp_path)
    tokeniser = VQTokeniser(entries=CODES, dim=4, widths=(4, 4), blocks=0, groups=2)
    codes = {"params": tokeniser.init(RNG, PICTURES, method="codes")["params"]}
    chosen = tokeniser.apply(codes, PICTURES, method="codes").reshape(2, -1)
    objective = BEiT(source="stream", patch=4, least=3)
    modules = pair.modules | {"image_tokeniser": tokeniser}
    params = pair.params | {"image_tokeniser": codes["params"]}
    ours = runner(modules, objective, RNG)(params, {"image": PICTURES})

    masked = np.asarray(objective.mask(RNG, 2, 3, 6))
    assert 0 < masked.sum() <= 14
    labels = tensor(np.asarray(chosen)[masked]).long()
    out = pair.theirs(PIXELS, bool_masked_pos=tensor(masked), labels=labels)
    out.loss.backward()
    assert_states_close(ours.calls["trained image call"][0], out)
    (scores,) = ours.calls["trained beit_head call"]
    assert_close(scores, out.logits.detach(), what="scores")
    assert_close(ours.value, out.loss.item())
    assert not any(np.any(g) for g in jax.tree.leaves(ours.gradients.pop("image_tokeniser")))
    assert_gradients_close(ours.gradients, pair.gradients())


@pytest.mark.parametrize("kind", ["Beit", "Data2VecVision"])
def test_classification(kind, tmp_path):
    """Mean of the patches; one table for all blocks, interpolated; without layer scale."""
    config = getattr(transformers, f"{kind}Config")(
        **BLOCKS,
        num_labels=5,
        use_shared_relative_position_bias=True,
        use_mask_token=True,
        layer_scale_init_value=0.0,
    )
    pair = Pair(getattr(transformers, f"{kind}ForImageClassification"), config, tmp_path)

    def loss(params):
        encoded = pair.apply("image", params, PICTURES)
        pooled = pair.apply("pooler_norm", params, encoded.tokens[:, 1:].mean(1))
        logits = pair.apply("classifier", params, pooled)
        return -jax.nn.log_softmax(logits)[jnp.arange(2), LABELS].mean(), (encoded, logits)

    value, (encoded, logits), gradients = value_and_gradients(loss, pair.params)
    out = pair.theirs(PIXELS, labels=tensor(LABELS))
    out.loss.backward()
    assert_states_close(encoded, out)
    assert_close(logits, out.logits.detach(), what="logits")
    assert_close(value, out.loss.item())
    assert_gradients_close(gradients, pair.gradients())
