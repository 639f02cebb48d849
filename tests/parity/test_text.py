"""BERT, RoBERTa, data2vec and GPT-2 of transformers, read from files: states, logits, loss, gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.objectives.base import mean_of
from taichu_jax.objectives.text.causal_lm import CausalLanguageModel
from taichu_jax.ops.classification import cross_entropy
from tests.parity.folders import SIZES, Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close, runner

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

VOCABULARY, LENGTH = 50, 11
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(6, VOCABULARY, (3, LENGTH)).astype(np.int32)
MASK = np.arange(LENGTH) < np.array([[LENGTH], [7], [1]])
GAPS = MASK & (np.arange(LENGTH) != np.array([[3], [0], [9]]))  # padding before and between
CHOSEN = MASK & (DRAW.uniform(size=MASK.shape) < 0.4)
LABELS = DRAW.integers(0, VOCABULARY, (3, LENGTH)).astype(np.int32)
TYPES = DRAW.integers(0, 2, (3, LENGTH)).astype(np.int32)
FOLLOWS = np.array([0, 1, 1], np.int32)


def masked_loss(logits, chosen):
    total, _, count = cross_entropy(logits, LABELS, chosen)
    return mean_of(total, count)


def given(mask, pad):
    return {
        "input_ids": tensor(np.where(mask, TOKENS, pad)).long(),
        "attention_mask": tensor(mask.astype(np.int64)),
    }


def labels(chosen):
    return tensor(np.where(chosen, LABELS, -100)).long()


def assert_states_close(found, out, mask):
    assert len(found.layers) == len(out.hidden_states)
    for i, (ours, theirs) in enumerate(zip(found.layers, out.hidden_states, strict=True)):
        assert_close(ours, theirs.detach(), mask, what=f"layer {i}")


def test_bert(tmp_path):
    """Masked tokens and next sentence; the padding's states are not compared."""
    config = transformers.BertConfig(
        **SIZES, vocab_size=VOCABULARY, max_position_embeddings=13, output_hidden_states=True
    )
    pair = Pair(transformers.BertForPreTraining, config, tmp_path)
    assert set(pair.modules) == {"text", "pooler", "next_sentence_head"}

    def loss(params):
        encoded = pair.apply("text", params, TOKENS * MASK, MASK, types=TYPES)
        logits = pair.apply("text", params, encoded.tokens, method="logits")
        pooled = jnp.tanh(pair.apply("pooler", params, encoded.tokens[:, 0]))
        next_logits = pair.apply("next_sentence_head", params, pooled)
        follows = -jax.nn.log_softmax(next_logits)[jnp.arange(3), FOLLOWS].mean()
        return masked_loss(logits, CHOSEN) + follows, (encoded, logits, next_logits)

    value, (encoded, logits, next_logits), gradients = value_and_gradients(loss, pair.params)
    out = pair.theirs(
        **given(MASK, 0),
        token_type_ids=tensor(TYPES).long(),
        labels=labels(CHOSEN),
        next_sentence_label=tensor(FOLLOWS).long(),
    )
    out.loss.backward()
    assert_states_close(encoded, out, MASK)
    assert_close(logits, out.prediction_logits.detach(), MASK, what="logits")
    assert_close(next_logits, out.seq_relationship_logits.detach(), what="next sentence")
    assert_close(value, out.loss.item())
    assert_gradients_close(gradients, pair.gradients())


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_bert_with_other_activations(activation, tmp_path):
    config = transformers.BertConfig(**SIZES, vocab_size=VOCABULARY, hidden_act=activation)
    pair = Pair(transformers.BertForMaskedLM, config, tmp_path)
    encoded = pair.apply("text", pair.params, TOKENS * MASK, MASK)
    logits = pair.apply("text", pair.params, encoded.tokens, method="logits")
    theirs = pair.theirs(**given(MASK, 0)).logits.detach()
    assert_close(logits, theirs, MASK)


@pytest.mark.parametrize("kind", ["Roberta", "Data2VecText"])
def test_roberta(kind, tmp_path):
    """Positions count real tokens, with padding before and between them too."""
    config = getattr(transformers, f"{kind}Config")(
        **SIZES, vocab_size=VOCABULARY, max_position_embeddings=14, output_hidden_states=True
    )
    pair = Pair(getattr(transformers, f"{kind}ForMaskedLM"), config, tmp_path)
    tokens = np.where(GAPS, TOKENS, 1)
    chosen = CHOSEN & GAPS

    def loss(params):
        encoded = pair.apply("text", params, tokens, GAPS)
        logits = pair.apply("text", params, encoded.tokens, method="logits")
        return masked_loss(logits, chosen), (encoded, logits)

    value, (encoded, logits), gradients = value_and_gradients(loss, pair.params)
    out = pair.theirs(**given(GAPS, 1), labels=labels(chosen))
    out.loss.backward()
    assert_states_close(encoded, out, GAPS)
    assert_close(logits, out.logits.detach(), GAPS, what="logits")
    assert_close(value, out.loss.item())
    assert_gradients_close(gradients, pair.gradients())


def test_gpt2(tmp_path):
    """With our objective; rows are padded behind their end."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=13,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
        output_hidden_states=True,
    )
    pair = Pair(transformers.GPT2LMHeadModel, config, tmp_path)
    run = runner(pair.modules, CausalLanguageModel(source="stream"), jax.random.key(0))
    ours = run(pair.params, {"text": TOKENS * MASK, "text_mask": MASK})
    inputs = given(MASK, 0)
    hidden = inputs["input_ids"].masked_fill(~tensor(MASK), -100)
    out = pair.theirs(**inputs, labels=hidden)
    out.loss.backward()
    (encoded,) = ours.calls["trained text call"]
    *before, last = out.hidden_states  # the last one is normalised
    for i, (state, theirs) in enumerate(zip(encoded.layers[:-1], before, strict=True)):
        assert_close(state, theirs.detach(), MASK, what=f"layer {i}")
    assert_close(encoded.tokens, last.detach(), MASK, what="tokens")
    (logits,) = ours.calls["trained text logits"]
    assert_close(logits, out.logits.detach()[:, :-1], MASK[:, :-1], what="logits")
    assert_close(ours.value, out.loss.item())
    assert_gradients_close(ours.gradients, pair.gradients())
