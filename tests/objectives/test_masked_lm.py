"""The masked language model against its formula in NumPy, given the positions that were chosen."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.ops.masking import choose_exactly
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import FIRST_TOKEN, MASK
from tests import batches


class FakeNets:
    """Fixed logits; remembers what the encoder was shown."""

    step = jnp.int32(0)

    def __init__(self, shape):
        rng = np.random.default_rng(4)
        self.states = jnp.asarray(rng.normal(size=(*shape, 4)), jnp.float32)
        self.scores = rng.normal(size=(*shape, batches.VOCAB)).astype(np.float32)
        self.seen = self.packing = None

    def __call__(self, name, *args, method=None, **packing):
        assert name == "text"
        if method == "logits":
            assert args[0] is self.states
            return jnp.asarray(self.scores)
        self.seen, self.packing = np.asarray(args[0]), packing
        return SimpleNamespace(tokens=self.states)


def positions_of(objective, batch, rng):
    """The chosen positions: round(rate * n) of the n ordinary tokens of a row, at least one."""
    allowed = batch["text_mask"] & (batch["text"] >= FIRST_TOKEN)
    counts = [min(max(round(objective.rate * n), 1), n) for n in map(int, allowed.sum(1))]
    return np.asarray(choose_exactly(fold_name(rng, "positions"), allowed, jnp.array(counts)))


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_loss_is_the_formula(rate):
    batch = batches.text(8)
    objective = MaskedLanguageModel(source="s", vocab_size=batches.VOCAB, rate=rate)
    nets = FakeNets(batch["text"].shape)
    loss = objective.loss(nets, batch, None, jax.random.key(7))
    chosen = positions_of(objective, batch, jax.random.key(7))
    losses, right = [], []
    for b, i in np.argwhere(chosen):
        scores = nets.scores[b, i].astype(np.float64)
        label = batch["text"][b, i]
        losses.append(np.log(np.exp(scores).sum()) - scores[label])
        right.append(scores.argmax() == label)
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-5)
    assert loss.metrics["accuracy"] == (sum(right), len(right))
    assert loss.metrics["feature_std"][0] > 0


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_the_head_may_see_the_chosen_tokens_alone(rate):
    """The same loss and gradient of the head, and fewer positions; with rows of words alone, too."""
    batch, seen = batches.text(8), []
    batch["text"][:4] = np.random.default_rng(6).integers(
        FIRST_TOKEN, batches.VOCAB, batch["text"][:4].shape
    )
    batch["text_mask"][:4] = True
    nets = FakeNets(batch["text"].shape)
    head = jnp.asarray(np.random.default_rng(5).normal(size=(4, batches.VOCAB)), jnp.float32)

    def value(head, chosen_only):
        def call(name, x, *args, method=None):
            if method == "logits":
                seen.append(x.shape[1])
                return x @ head
            return SimpleNamespace(tokens=nets.states)

        objective = MaskedLanguageModel(
            source="s", vocab_size=batches.VOCAB, rate=rate, chosen_only=chosen_only
        )
        loss = objective.loss(call, batch, None, jax.random.key(7))
        return loss.value, loss.metrics["accuracy"]

    run = jax.value_and_grad(value, has_aux=True)
    (whole, right), gradient = run(head, False)
    (part, right_part), gradient_part = run(head, True)
    np.testing.assert_allclose(part, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient_part, gradient, rtol=1e-5, atol=1e-6)
    assert right == right_part and right[1] >= 8 and seen[1] < seen[0]


def test_what_the_encoder_sees():
    """Only chosen tokens change; special tokens and padding never do; nothing outside the vocabulary."""
    batch = batches.text(8)
    objective = MaskedLanguageModel(source="s", vocab_size=batches.VOCAB, rate=0.5)
    nets = FakeNets(batch["text"].shape)
    masked = 0
    for seed in range(20):
        objective.loss(nets, batch, None, jax.random.key(seed))
        chosen = positions_of(objective, batch, jax.random.key(seed))
        changed = nets.seen != batch["text"]
        assert not (changed & ~chosen).any()
        assert not (changed & (batch["text"] < FIRST_TOKEN)).any()
        new = nets.seen[changed]
        assert ((new == MASK) | ((new >= FIRST_TOKEN) & (new < batches.VOCAB))).all()
        masked += (nets.seen == MASK).sum() / chosen.sum() / 20
    assert abs(masked - 0.8) < 4 * np.sqrt(0.8 * 0.2 / (20 * chosen.sum()))


def test_rows_without_ordinary_tokens_do_not_count():
    batch = {
        "text": np.tile(np.array([[2, 3, 0]], np.int32), (2, 1)),
        "text_mask": np.tile([[True, True, False]], (2, 1)),
    }
    objective = MaskedLanguageModel(source="s", vocab_size=batches.VOCAB)
    loss = objective.loss(FakeNets((2, 3)), batch, None, jax.random.key(0))
    assert loss.value == 0 and loss.metrics["accuracy"] == (0, 0)


def test_packed_rows_tell_the_encoder_who_belongs_together():
    batch = batches.text(2)
    batch["text_segments"] = np.ones_like(batch["text"])
    batch["text_positions"] = np.ones_like(batch["text"])
    nets = FakeNets(batch["text"].shape)
    objective = MaskedLanguageModel(source="s", vocab_size=batches.VOCAB, packed=True)
    objective.loss(nets, batch, None, jax.random.key(0))
    assert nets.packing["segments"] is batch["text_segments"]
    assert nets.packing["positions"] is batch["text_positions"]
