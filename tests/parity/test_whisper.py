"""Whisper's encoder of transformers, read from its files: states, logits, loss, gradients."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from taichu_jax.interop.convert import read_model
from tests.parity.folders import Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

BANDS, FRAMES = 5, 14
SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "max_source_positions": FRAMES // 2,
    "max_target_positions": 4,
    "num_mel_bins": BANDS,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
    "attn_implementation": "eager",
}
DRAW = np.random.default_rng(0)
MEL = DRAW.normal(size=(3, FRAMES, BANDS)).astype(np.float32)
LABELS = np.array([4, 0, 2])


def test_whisper(tmp_path):
    """With the classifier on the mean of the states; utterances fill their frames, as theirs must."""
    config = transformers.WhisperConfig(
        **SIZES, num_labels=5, classifier_proj_size=6, output_hidden_states=True
    )
    pair = Pair(transformers.WhisperForAudioClassification, config, tmp_path)
    pair.theirs.encoder.embed_positions.requires_grad_(True)  # a parameter of the file all the same
    lengths = np.full(3, FRAMES)

    def loss(params):
        encoded = pair.apply("speech", params, MEL, lengths)
        projected = pair.apply("projector", params, encoded.tokens).mean(1)
        logits = pair.apply("classifier", params, projected)
        return -jax.nn.log_softmax(logits)[np.arange(3), LABELS].mean(), (encoded, logits)

    value, (encoded, logits), gradients = value_and_gradients(loss, pair.params)
    out = pair.theirs(tensor(MEL.transpose(0, 2, 1)), labels=tensor(LABELS))
    out.loss.backward()
    *before, last = out.hidden_states  # the last one is normalised
    for i, (ours, theirs) in enumerate(zip(encoded.layers, before, strict=False)):
        assert_close(ours, theirs.detach(), what=f"layer {i}")
    assert len(encoded.layers) == len(before) + 1 == 3
    assert_close(encoded.tokens, last.detach(), what="tokens")
    assert_close(logits, out.logits.detach(), what="logits")
    assert_close(value, out.loss.item())
    assert not np.any(gradients["speech"].pop("mask_token", 0))
    theirs = pair.gradients()
    theirs["speech"].pop("mask_token", None)
    assert_gradients_close(gradients, theirs)


@pytest.mark.parametrize("kind", ["WhisperForConditionalGeneration", "WhisperModel"])
def test_the_encoder_of_a_whole_model(kind, tmp_path):
    model = getattr(transformers, kind)(transformers.WhisperConfig(**SIZES))
    model.save_pretrained(tmp_path)
    read = read_model(tmp_path)
    assert set(read.networks) == {"speech"} and read.anew == ["speech/mask_token"]
    assert sum(read.left_out.values()) == sum("decoder." in name for name in read.types) > 20
    encoder = getattr(model, "model", model).encoder
    kernel = encoder.layers[1].self_attn.k_proj.weight.detach().numpy()
    ours = read.params["speech"]["transformer"]["block_1"]["attention"]["key"]
    assert set(ours) == {"kernel"}
    np.testing.assert_array_equal(ours["kernel"], kernel.T)
