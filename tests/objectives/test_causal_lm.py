"""The causal language model against its formula in NumPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.objectives.text.causal_lm import CausalLanguageModel
from taichu_jax.training.nets import BoundNets
from tests import batches
from tests import case as cases


class FakeNets:
    """Logits that are a fixed function of the place."""

    step = jnp.int32(0)

    def __init__(self, shape):
        self.scores = np.random.default_rng(4).normal(size=(*shape, batches.VOCAB))

    def __call__(self, name, *args, method=None, **packing):
        if method == "logits":
            assert args[0].shape[1] == self.scores.shape[1] - 1
            return jnp.asarray(self.scores[:, :-1], jnp.float32)
        return SimpleNamespace(tokens=jnp.zeros((*self.scores.shape[:2], 2)))


@pytest.mark.parametrize("packed", [False, True])
def test_loss_is_the_formula(packed):
    batch = batches.text(6)
    tokens, mask = batch["text"], batch["text_mask"]
    segments = np.cumsum(np.arange(tokens.shape[1]) % 3 == 0)[None].repeat(6, 0).astype(np.int32)
    batch |= {"text_segments": segments, "text_positions": np.zeros_like(tokens)}
    nets = FakeNets(tokens.shape)
    objective = CausalLanguageModel(source="s", packed=packed)
    loss = objective.loss(nets, batch, None, jax.random.key(0))
    losses, right = [], []
    for b in range(6):
        for i in range(tokens.shape[1] - 1):
            real = mask[b, i] and mask[b, i + 1]
            if not real or (packed and segments[b, i] != segments[b, i + 1]):
                continue
            scores, label = nets.scores[b, i], tokens[b, i + 1]
            losses.append(np.log(np.exp(scores).sum()) - scores[label])
            right.append(scores.argmax() == label)
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-5)
    assert loss.metrics["accuracy"] == (sum(right), len(right))
    bits, count = loss.metrics["log2_perplexity"]
    np.testing.assert_allclose(bits / count, np.mean(losses) / np.log(2), rtol=1e-5)


@pytest.fixture(scope="module")
def bound():
    modules, _, params, *_ = cases.built("causal_lm")
    rng = np.random.default_rng(0)
    # Stronger weights than those of initialisation, at which attention hardly matters.
    params = jax.tree.map(lambda p: p + 0.2 * rng.normal(size=p.shape).astype("f"), params)

    @jax.jit
    def loss(batch, packed_batch):
        nets = BoundNets(modules, params)
        alone = CausalLanguageModel(source="s").loss(nets, batch, None, jax.random.key(0))
        packed = CausalLanguageModel(source="s", packed=True)
        return alone, packed.loss(nets, packed_batch, None, jax.random.key(0))

    @jax.jit
    def logits(tokens):
        nets = BoundNets(modules, params)
        states = nets("text", tokens, jnp.ones(tokens.shape, bool)).tokens
        return nets("text", states, method="logits")

    return loss, logits


def test_a_later_token_never_changes_earlier_logits(bound):
    tokens = batches.text()["text"]
    base = bound[1](tokens)
    for i in (1, 5, 9):
        changed = tokens.copy()
        changed[:, i] = 6 + (changed[:, i] + 7) % 30
        moved = bound[1](changed)
        np.testing.assert_array_equal(moved[:, :i], base[:, :i])
        assert (np.abs(moved[:, i:] - base[:, i:]).max((0, 2)) > 1e-3).all()


def test_packed_rows_are_separate_rows(bound):
    rng = np.random.default_rng(1)
    first, second = rng.integers(6, 40, 6).astype(np.int32), rng.integers(6, 40, 4).astype(np.int32)
    rows = np.zeros((2, 10), np.int32)
    rows[0, :6], rows[1, :4] = first, second
    lengths = np.array([[6], [4]])
    separate = {"text": rows, "text_mask": np.arange(10) < lengths}
    packed = {
        "text": np.concatenate([first, second])[None],
        "text_mask": np.ones((1, 10), bool),
        "text_segments": np.repeat([1, 2], [6, 4])[None].astype(np.int32),
        "text_positions": np.concatenate([np.arange(6), np.arange(4)])[None].astype(np.int32),
    }
    alone, together = bound[0](separate, packed)
    np.testing.assert_allclose(together.value, alone.value, rtol=1e-5)
    assert alone.metrics["accuracy"][1] == together.metrics["accuracy"][1] == 5 + 3
