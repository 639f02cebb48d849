"""BART of transformers, read from its files: every state of both sides, logits, loss, gradients."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from taichu_jax.models.transformer import Block
from taichu_jax.objectives.text.denoising import Denoising
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.text_infilling import infill, permute_sentences
from taichu_jax.ops.vocabulary import MASK as MASKED
from tests.parity.folders import Pair, tensor
from tests.parity.ours import assert_close, assert_gradients_close, runner
from tests.parity.theirs import torch

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

VOCABULARY, LENGTH = 40, 13
DRAW = np.random.default_rng(0)
MASK = np.arange(LENGTH) < np.array([[LENGTH], [9], [2]])
TOKENS = DRAW.integers(2, VOCABULARY, (3, LENGTH)).astype(np.int32) * MASK
SEGMENTS = (1 + np.arange(LENGTH) // 4) * MASK
RNG = jax.random.key(3)


class Biased(transformers.BartForConditionalGeneration):
    """With a bias of the logits, which is no parameter there and 0."""

    def __init__(self, config):
        super().__init__(config)
        self.final_logits_bias.copy_(torch.linspace(-1, 1, VOCABULARY)[None])


def test_bart(tmp_path):
    """Our objective, and theirs with the noise that ours draws."""
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=LENGTH + 2,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,  # an embedding that theirs never learns, for it is at no place
        output_hidden_states=True,
        attn_implementation="eager",
    )
    pair = Pair(Biased, config, tmp_path)
    assert set(pair.modules) == {"text"} and pair.read.anew == []
    batch = {"text": TOKENS, "text_mask": MASK, "text_segments": SEGMENTS.astype(np.int32)}
    objective = Denoising(source="stream", permute=True)
    ours = runner(pair.modules, objective, RNG)(pair.params, batch)

    moved = permute_sentences(fold_name(RNG, "order"), TOKENS, batch["text_segments"])
    noisy, real = infill(fold_name(RNG, "spans"), moved, MASK, mask_token=MASKED)
    assert (np.array(noisy) == MASKED).sum() >= 3
    counted = MASK[:, 1:]
    out = pair.theirs(
        tensor(noisy).long(),
        attention_mask=tensor(real).long(),
        decoder_input_ids=tensor(TOKENS[:, :-1]).long(),
        decoder_attention_mask=tensor(MASK[:, :-1]).long(),
        labels=tensor(np.where(counted, TOKENS[:, 1:], -100)).long(),
    )
    out.loss.backward()
    (read,) = ours.calls["trained text call"]
    assert len(read.layers) == len(out.encoder_hidden_states) == 3
    for i, (state, theirs) in enumerate(zip(read.layers, out.encoder_hidden_states, strict=True)):
        assert_close(state, theirs.detach(), real, what=f"encoder {i}")
    (logits,) = ours.calls["trained text decode"]
    assert_close(logits, out.logits.detach(), MASK[:, :-1], what="logits")
    assert_close(ours.value, out.loss.item())
    for i, (state, theirs) in enumerate(
        zip(written(pair, read), out.decoder_hidden_states, strict=True)
    ):
        assert_close(state, theirs.detach(), MASK[:, :-1], what=f"decoder {i}")

    wrong = torch.softmax(out.logits.detach(), -1).numpy()
    wrong -= np.eye(VOCABULARY)[TOKENS[:, 1:]]
    theirs = pair.gradients()
    theirs["text"]["decoder"]["head_bias"] = wrong[counted].mean(0)
    assert_gradients_close(ours.gradients, theirs)


def written(pair, read) -> list:
    """The decoder's states: what goes into the first block, and what comes out of each."""

    @jax.jit
    def run(read):
        _, state = pair.modules["text"].apply(
            {"params": pair.params["text"]},
            TOKENS[:, :-1],
            MASK[:, :-1],
            read.tokens,
            read.mask,
            method="decode",
            capture_intermediates=lambda module, _: (
                isinstance(module, Block) or module.name == "first_norm"
            ),
        )
        return state["intermediates"]["decoder"]

    found = run(read)
    blocks = [found["transformer"][f"block_{i}"]["__call__"][0] for i in range(3)]
    return [found["first_norm"]["__call__"][0], *blocks]
