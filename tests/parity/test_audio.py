"""wav2vec 2.0, HuBERT and data2vec of transformers, read from their files: states and gradients.

As published: post-norm and group norm (base), pre-norm and norms over channels (large), a position
convolution with weight normalisation. Objectives: tests/parity/test_transformers.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.folders import Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close
from tests.parity.theirs import outputs_of, torch

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "conv_dim": (12, 12, 12),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embedding_groups": 2,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
    "attn_implementation": "eager",
} | dict.fromkeys(
    (
        "hidden_dropout",
        "activation_dropout",
        "attention_dropout",
        "feat_proj_dropout",
        "final_dropout",
        "layerdrop",
    ),
    0.0,
)
PLACES = {"num_conv_pos_embeddings": 4}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SAMPLES = 233
FULL = np.array([SAMPLES] * 3, np.int32)
RAGGED = np.array([SAMPLES, 180, 97], np.int32)
DRAW = np.random.default_rng(0)
AUDIO = DRAW.normal(size=(3, SAMPLES)).astype(np.float32)
WEIGHTS = DRAW.normal(size=(3, 11, 16)).astype(np.float32)  # of the states in the loss


def assert_parity(pair, model, lengths):
    """States of every layer and gradients of a weighted sum of the last; `model` is the encoder's."""
    there = np.arange(SAMPLES) < lengths[:, None]

    def loss(params):
        encoded = pair.apply("speech", params, AUDIO, lengths)
        return (encoded.tokens * WEIGHTS * encoded.mask[..., None]).sum(), encoded

    _, encoded, gradients = value_and_gradients(loss, pair.params)
    given = {"input_values": tensor(np.where(there, AUDIO, 0))}
    if not there.all():
        given["attention_mask"] = tensor(there.astype(np.int64))
    recorded = outputs_of([model.encoder.dropout, *model.encoder.layers])
    last = model(**given).last_hidden_state
    mask = np.array(encoded.mask)
    (last * tensor(WEIGHTS * mask[..., None])).sum().backward()
    assert len(encoded.layers) == len(recorded) == 3
    for i, (ours, theirs) in enumerate(zip(encoded.layers, recorded, strict=True)):
        assert_close(ours, theirs.detach(), mask, what=f"layer {i}")
    assert_close(encoded.tokens, last.detach(), mask, what="tokens")
    if "ctc_head" in pair.modules:
        head = pair.apply("ctc_head", pair.params, encoded.tokens)
        assert_close(head, pair.theirs.lm_head(last).detach(), mask, what="logits")
    assert_gradients_close(gradients, pair.gradients())


@pytest.mark.parametrize("size", ["base", "large"])
def test_wav2vec2(size, tmp_path):
    large = LARGE if size == "large" else {}
    config = transformers.Wav2Vec2Config(**SIZES, **PLACES, **large, vocab_size=20)
    pair = Pair(transformers.Wav2Vec2ForCTC, config, tmp_path)
    assert set(pair.modules) == {"speech", "ctc_head"}
    assert_parity(pair, pair.theirs.wav2vec2, RAGGED if large else FULL)


def test_wav2vec2_alone(tmp_path):
    """Group norm: ours with padding is theirs without; and the quantiser and both projections."""
    config = transformers.Wav2Vec2Config(
        **SIZES,
        **PLACES,
        codevector_dim=8,
        proj_codevector_dim=10,
        num_codevectors_per_group=6,
        num_codevector_groups=2,
    )
    pair = Pair(transformers.Wav2Vec2ForPreTraining, config, tmp_path)
    model = pair.theirs.eval()

    @jax.jit
    def both(params):
        latents, mask = pair.apply("speech", params, AUDIO, RAGGED, method="features")
        encoded = pair.apply("speech", params, latents, mask, method="contextualise")
        normal = pair.apply("speech", params, latents, method="normalise")
        codes = pair.apply("quantiser", params, normal).vectors
        head = pair.apply("wav2vec2_head", params, encoded.tokens)
        return mask, (head, pair.apply("wav2vec2_target_head", params, codes))

    mask, ours = both(pair.params)
    for b, samples in enumerate(RAGGED):
        with torch.no_grad():
            out = model(tensor(AUDIO[b : b + 1, :samples]))
        theirs = [out.projected_states[0], out.projected_quantized_states[0]]
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine[b, : len(other)], other)
        assert int(jnp.sum(mask[b])) == len(theirs[0])


def test_hubert(tmp_path):
    config = transformers.HubertConfig(**SIZES, **PLACES, **LARGE)
    pair = Pair(transformers.HubertModel, config, tmp_path)
    assert_parity(pair, pair.theirs, RAGGED)


def test_data2vec(tmp_path):
    config = transformers.Data2VecAudioConfig(
        **SIZES, num_conv_pos_embeddings=2, conv_pos_kernel_size=5
    )
    pair = Pair(transformers.Data2VecAudioModel, config, tmp_path)
    assert_parity(pair, pair.theirs, FULL)
