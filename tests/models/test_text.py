import jax
import numpy as np
import pytest
from jax.scipy.special import erf

from taichu_jax.models.text import TextDecoder, TextEncoder

FIELDS = {"vocab_size": 20, "width": 8, "depth": 2, "heads": 2, "length": 8}
TOKENS = np.random.default_rng(0).integers(6, 20, (2, 8)).astype(np.int32)
MASK = np.arange(8) < np.array([[8], [5]])


def noisy(params):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype(np.float32), params)


def encoder(causal=False):
    model = TextEncoder(**FIELDS, causal=causal)

    def everything(module, tokens, mask):
        return module.logits(module(tokens, mask).tokens)

    params = jax.jit(lambda: model.init(jax.random.key(0), TOKENS, MASK, method=everything))()
    return model, noisy(params)


def test_padding_is_not_seen():
    model, params = encoder()
    apply = jax.jit(model.apply)
    spoiled = np.where(MASK, TOKENS, 7)
    a, b = apply(params, TOKENS, MASK).tokens, apply(params, spoiled, MASK).tokens
    np.testing.assert_array_equal(a[MASK], b[MASK])
    short = apply(params, TOKENS[1:, :5], MASK[1:, :5]).tokens
    np.testing.assert_allclose(a[1, :5], short[0], atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_packed_rows_are_separate_rows(causal):
    model, params = encoder(causal)
    apply = jax.jit(model.apply)
    packed = np.concatenate([TOKENS[0, :3], TOKENS[1, :4], [0]])[None].astype(np.int32)
    out = apply(
        params,
        packed,
        np.arange(8)[None] < 7,
        np.array([[0, 1, 2, 0, 1, 2, 3, 0]], np.int32),
        np.array([[1, 1, 1, 2, 2, 2, 2, 0]], np.int32),
    ).tokens
    for row, start, length in ((0, 0, 3), (1, 3, 4)):
        alone = apply(params, TOKENS[row : row + 1], np.arange(8)[None] < length).tokens
        np.testing.assert_allclose(out[0, start : start + length], alone[0, :length], atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_who_sees_a_later_token(causal):
    model, params = encoder(causal)
    changed = TOKENS.copy()
    changed[:, 4] = 6 + (changed[:, 4] - 5) % 14
    apply = jax.jit(model.apply)
    a, b = (apply(params, t, np.ones((2, 8), bool)).tokens for t in (TOKENS, changed))
    differs = np.abs(np.asarray(a) - np.asarray(b)).max((0, 2)) > 0
    assert list(differs) == [not causal] * 4 + [True] * 4


@pytest.mark.parametrize("head_kind", ["transform", "untied"])
def test_logits_are_tied_to_the_embedding_or_not(head_kind):
    model = TextEncoder(**FIELDS, head_kind=head_kind)
    states = np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32)
    params = noisy(jax.jit(lambda: model.init(jax.random.key(0), states, method="logits"))())
    tree = params["params"]
    got = model.apply(params, states, method="logits")
    rows = tree["token_embedding"] if head_kind == "transform" else tree["head_kernel"].T
    for n in range(3):
        x = states[n] @ tree["head"]["kernel"] + tree["head"]["bias"]
        x = np.asarray(x * (1 + erf(x / np.sqrt(2))) / 2)
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
        x = x * tree["head_norm"]["scale"] + tree["head_norm"]["bias"]
        want = [x @ rows[v] + tree["head_bias"][v] for v in range(20)]
        np.testing.assert_allclose(got[n], want, atol=1e-4)


def test_decoder_is_causal_and_sees_the_real_memory_only():
    model = TextDecoder(**FIELDS)
    memory = np.random.default_rng(3).normal(size=(2, 4, 6)).astype(np.float32)
    memory_mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    full = np.ones((2, 8), bool)
    params = noisy(jax.jit(model.init)(jax.random.key(0), TOKENS, full, memory, memory_mask))
    apply = jax.jit(model.apply)
    base = apply(params, TOKENS, full, memory, memory_mask)
    assert base.shape == (2, 8, 20)
    changed = TOKENS.copy()
    changed[:, 4] = 6 + (changed[:, 4] - 5) % 14
    moved = apply(params, changed, full, memory, memory_mask)
    np.testing.assert_array_equal(base[:, :4], moved[:, :4])
    assert (np.abs(base[:, 4:] - moved[:, 4:]).max(-1) > 0).all()
    spoiled = memory.copy()
    spoiled[1, 2:] += 1
    np.testing.assert_array_equal(apply(params, TOKENS, full, spoiled, memory_mask), base)
    spoiled[1, 1] += 1
    other = apply(params, TOKENS, full, spoiled, memory_mask)
    assert (np.abs(other[1] - base[1]).max(-1) > 0).all()


def test_texts_that_are_too_long_are_refused():
    long = np.ones((1, 9), np.int32)
    with pytest.raises(ValueError, match="9 tokens, but length=8"):
        jax.eval_shape(TextEncoder(**FIELDS).init, jax.random.key(0), long, long > 0)
    with pytest.raises(ValueError, match="9 tokens, but length=8"):
        jax.eval_shape(
            TextDecoder(**FIELDS).init,
            jax.random.key(0),
            long,
            long > 0,
            np.ones((1, 2, 8), np.float32),
            np.ones((1, 2), bool),
        )
