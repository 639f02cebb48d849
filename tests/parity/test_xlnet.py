"""XLNet of transformers, read from its files: both streams, segments and memory."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from taichu_jax.objectives.base import mean_of
from taichu_jax.objectives.text.permutation_lm import PermutationLanguageModel
from taichu_jax.ops import factorisation
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.random import fold_name
from tests.parity.folders import Pair, tensor, value_and_gradients
from tests.parity.ours import assert_close, assert_gradients_close, runner

transformers = pytest.importorskip("transformers", reason="see requirements-test.txt")

VOCABULARY, LENGTH = 40, 13
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(6, VOCABULARY, (3, LENGTH)).astype(np.int32)
TOKENS[:, 0] = 2  # a special token: each target sees at least this one
MASK = np.arange(LENGTH) < np.array([[LENGTH], [8], [3]])
GAPS = MASK & (np.arange(LENGTH) != np.array([[3], [0], [9]]))
TYPES = DRAW.integers(0, 2, (3, LENGTH)).astype(np.int32)
RNG = jax.random.key(3)


def pair_of(kind, folder, **more):
    config = transformers.XLNetConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        n_layer=2,
        n_head=2,
        d_inner=24,
        dropout=0.0,
        output_hidden_states=True,
        **more,
    )
    return Pair(kind, config, folder)


def given(mask):
    return {
        "input_ids": tensor(TOKENS * mask).long(),
        "attention_mask": tensor(mask.astype(np.float32)),
    }


@pytest.mark.parametrize("context", ["ordered", "open"])
def test_permutation_language_model(context, tmp_path):
    """Our objective, and theirs with the order and the targets that ours draws."""
    pair = pair_of(transformers.XLNetLMHeadModel, tmp_path)
    objective = PermutationLanguageModel(source="stream", one_in=2, longest=2, context=context)
    batch = {"text": TOKENS * MASK, "text_mask": MASK}
    ours = runner(pair.modules, objective, RNG)(pair.params, batch)

    allowed = MASK & (TOKENS >= 6)
    sizes = {"one_in": 2, "longest": 2}
    predicted = factorisation.predicted_spans(fold_name(RNG, "spans"), allowed, **sizes)
    order = np.array(factorisation.random_order(fold_name(RNG, "order"), predicted))
    predicted = np.array(predicted)
    blind = order[:, None, :] >= order[:, :, None]
    if context == "open":
        blind &= predicted[:, None, :] | predicted[:, :, None]
    count = predicted.sum(1).max()
    mapping, labels = np.zeros((3, count, LENGTH), "f"), np.full((3, count), -100)
    for b, row in enumerate(predicted):
        for p, place in enumerate(np.flatnonzero(row)):
            mapping[b, p, place], labels[b, p] = 1, TOKENS[b, place]
    out = pair.theirs(
        **given(MASK),
        perm_mask=tensor(blind.astype(np.float32)),
        target_mapping=tensor(mapping),
        labels=tensor(labels),
    )
    out.loss.backward()
    there = labels >= 0
    assert there.sum() >= 5 and len(out.hidden_states) == 6
    ((content, queries),) = ours.calls["trained text two_streams"]
    for i in range(3):
        h, g = (x.detach() for x in out.hidden_states[2 * i : 2 * i + 2])
        assert_close(content.layers[i], h, MASK, what=f"content {i}")
        assert_close(queries.layers[i][:, :count], g, there, what=f"query stream {i}")
    np.testing.assert_array_equal(queries.mask[:, :count][there], True)
    (logits,) = ours.calls["trained text logits"]
    assert_close(logits[:, :count], out.logits.detach(), there, what="logits")
    assert_close(ours.value, out.loss.item())
    theirs = pair.gradients()
    for i in range(2):  # ours is given no types, nor is theirs: there are no such terms to learn
        of_kinds = theirs["text"]["transformer"][f"block_{i}"]["attention"]["relative"]
        assert not np.any(of_kinds["segment_embedding"])
    assert_gradients_close(ours.gradients, theirs)


def test_one_stream_with_segments(tmp_path):
    """As it is fine-tuned: everything is seen but padding, which is between the tokens too."""
    pair = pair_of(transformers.XLNetLMHeadModel, tmp_path, ff_activation="gelu_new")
    labels = DRAW.integers(0, VOCABULARY, (3, LENGTH)).astype(np.int32)

    def loss(params):
        encoded = pair.apply("text", params, TOKENS * GAPS, GAPS, types=TYPES)
        logits = pair.apply("text", params, encoded.tokens, method="logits")
        total, _, count = cross_entropy(logits, labels, GAPS)
        return mean_of(total, count), (encoded, logits)

    value, (encoded, logits), gradients = value_and_gradients(loss, pair.params)
    out = pair.theirs(
        **given(GAPS),
        token_type_ids=tensor(TYPES).long(),
        labels=tensor(np.where(GAPS, labels, -100)).long(),
    )
    out.loss.backward()
    for i, (ours, theirs) in enumerate(zip(encoded.layers, out.hidden_states, strict=True)):
        assert_close(ours, theirs.detach(), GAPS, what=f"layer {i}")
    assert_close(logits, out.logits.detach(), GAPS, what="logits")
    assert_close(value, out.loss.item())
    theirs = pair.gradients()
    assert not np.any(theirs["text"].pop("mask_token"))
    assert not np.any(gradients["text"].pop("mask_token"))
    assert_gradients_close(gradients, theirs)


def test_memory(tmp_path):
    """A long text in pieces of 6 tokens, each of which sees the 5 before it, and so, by layers, more."""
    pair = pair_of(transformers.XLNetModel, tmp_path, mem_len=5)
    assert set(pair.read.anew) == {"text/head_bias"}
    params = jax.tree.map(jax.numpy.asarray, pair.params)
    text = DRAW.integers(6, VOCABULARY, (2, 18)).astype(np.int32)
    types = np.repeat([[0, 1, 0]], 6, axis=1).repeat(2, axis=0).astype(np.int32)

    @jax.jit
    def further(tokens, memory, types):
        return pair.apply("text", params, tokens, tokens > 0, memory, types=types, method="further")

    memory, mems = pair.modules["text"].start(2, 5), None
    for start in (0, 6, 12):
        piece = slice(start, start + 6)
        encoded, memory = further(text[:, piece], memory, types[:, piece])
        out = pair.theirs(
            tensor(text[:, piece]).long(),
            token_type_ids=tensor(types[:, piece]).long(),
            mems=mems,
            use_mems=True,
        )
        mems = out.mems
        for i, (ours, theirs) in enumerate(zip(encoded.layers, out.hidden_states, strict=True)):
            assert_close(ours, theirs.detach(), what=f"layer {i} from token {start}")
    assert memory.mask.all() and mems[0].shape[0] == 5
