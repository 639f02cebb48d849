"""The permutation language model: its formula in loops, and that no prediction knows too much."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.text.permutation_lm import PermutationLanguageModel
from taichu_jax.ops.factorisation import predicted_spans, random_order
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.vocabulary import FIRST_TOKEN
from taichu_jax.training.nets import BoundNets
from tests import batches
from tests import case as cases
from tests.fakes import FakeNets

RNG = jax.random.key(7)
SIZES = {"one_in": 2, "longest": 3}


def drawn(batch):
    """(predicted, order), as the objective draws them."""
    allowed = batch["text_mask"] & (batch["text"] >= FIRST_TOKEN)
    predicted = predicted_spans(fold_name(RNG, "spans"), allowed, **SIZES)
    return np.array(predicted), np.array(random_order(fold_name(RNG, "order"), predicted))


@pytest.mark.parametrize(("context", "packed"), [("ordered", False), ("open", True)])
def test_loss_is_the_formula(context, packed):
    batch = batches.text(8)
    tokens = batch["text"]
    size = tokens.shape[1]
    segments = (1 + np.arange(size) // 5)[None].repeat(8, 0).astype(np.int32)
    batch["text_segments"] = segments
    draw = np.random.default_rng(4)
    scores = draw.normal(size=(8, size, batches.VOCAB)).astype(np.float32)  # of every place
    states = jnp.asarray(draw.normal(size=(8, size, 4)), jnp.float32)
    nets = FakeNets(
        text__two_streams=lambda tokens, mask, see, targets: (
            SimpleNamespace(tokens=states),
            SimpleNamespace(tokens=targets),
        ),
        text__logits=lambda places: jnp.take_along_axis(jnp.asarray(scores), places[..., None], 1),
    )
    objective = PermutationLanguageModel(source="s", context=context, packed=packed, **SIZES)
    loss = objective.loss(nets, batch, None, RNG)

    predicted, order = drawn(batch)
    losses, right = [], []
    for b, i in np.argwhere(predicted):
        assert batch["text_mask"][b, i] and tokens[b, i] >= FIRST_TOKEN
        losses.append(
            np.log(np.exp(scores[b, i].astype(np.float64)).sum()) - scores[b, i, tokens[b, i]]
        )
        right.append(scores[b, i].argmax() == tokens[b, i])
    assert len(losses) > 10
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-5)
    assert loss.metrics["accuracy"] == (sum(right), len(right))
    bits, count = loss.metrics["log2_perplexity"]
    np.testing.assert_allclose(bits / count, np.mean(losses) / np.log(2), rtol=1e-5)

    (given, mask, see, _), _ = nets.asked("text.two_streams")
    np.testing.assert_array_equal(given, tokens)
    np.testing.assert_array_equal(mask, batch["text_mask"])
    for b, i, j in np.ndindex(see.shape):
        expected = order[b, j] < order[b, i]
        if context == "open" and not predicted[b, i] and not predicted[b, j]:
            expected = True
        if packed and segments[b, i] != segments[b, j]:
            expected = False
        assert see[b, i, j] == expected


def test_a_prediction_knows_only_what_comes_before_it():
    """Another token at a place changes what is predicted behind it in the order, and nothing else."""
    modules, _, params, *_ = cases.built("permutation_lm")
    draw = np.random.default_rng(0)
    # Stronger weights than those of initialisation, at which attention hardly matters.
    params = jax.tree.map(lambda p: p + 0.2 * draw.normal(size=p.shape).astype("f"), params)
    batch = batches.text(8)
    batch["text_mask"][:] = True  # where nothing is padding, all places count
    tokens = np.random.default_rng(1).integers(6, 40, batch["text"].shape).astype(np.int32)
    predicted, order = drawn(batch | {"text": tokens})
    see = order[:, None, :] < order[:, :, None]
    everywhere = np.tile(np.arange(tokens.shape[1]), (8, 1))

    @jax.jit
    def predictions(tokens):
        nets = BoundNets(modules, params)
        there = jnp.ones(tokens.shape, bool)
        _, queries = nets("text", tokens, there, see, everywhere, method="two_streams")
        return queries.tokens

    base = predictions(tokens)
    for place in (0, 4, 9):
        changed = tokens.copy()
        changed[:, place] = 6 + (changed[:, place] + 7) % 30
        moved = np.abs(predictions(changed) - base).max(-1)
        behind = order > order[:, [place]]
        assert (moved[~behind] == 0).all() and (moved[behind] > 1e-4).all()
    assert predicted.any()


def test_settings_that_make_no_sense():
    with pytest.raises(UserError, match=r"context='close'; .*valid: open, ordered"):
        PermutationLanguageModel(source="s", context="close")
    with pytest.raises(UserError, match="one_in=1: must be 2 or more"):
        PermutationLanguageModel(source="s", one_in=1)
