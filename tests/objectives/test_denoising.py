"""Denoising: its formula in loops, given the noise that was drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.text.denoising import Denoising
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.text_infilling import infill, permute_sentences
from taichu_jax.ops.vocabulary import MASK
from tests import batches
from tests.fakes import FakeNets


@pytest.mark.parametrize("permute", [False, True])
def test_loss_is_the_formula(permute):
    batch = batches.text(8)
    tokens, mask = batch["text"], batch["text_mask"]
    size = tokens.shape[1]
    segments = np.where(mask, 1 + np.arange(size) // 4, 0).astype(np.int32)
    batch["text_segments"] = segments
    draw = np.random.default_rng(4)
    scores = draw.normal(size=(8, size - 1, batches.VOCAB)).astype(np.float32)
    states = jnp.asarray(draw.normal(size=(8, size, 4)), jnp.float32)
    nets = FakeNets(
        text=lambda noisy, real: Encoded(tokens=states, mask=real),
        text__decode=lambda *args: jnp.asarray(scores),
    )
    key = jax.random.key(7)
    loss = Denoising(source="s", permute=permute, rate=0.5).loss(nets, batch, None, key)
    losses, right = [], []
    for b, i in np.argwhere(mask[:, 1:]):
        label, s = tokens[b, i + 1], scores[b, i].astype(np.float64)
        losses.append(np.log(np.exp(s).sum()) - s[label])
        right.append(s.argmax() == label)
    np.testing.assert_allclose(loss.value, np.mean(losses), rtol=1e-5)
    assert loss.metrics["accuracy"] == (sum(right), len(right))

    (noisy, real), _ = nets.asked("text")
    moved = tokens
    if permute:
        moved = permute_sentences(fold_name(key, "order"), tokens, segments)
        assert (np.array(moved) != tokens).any()
    expected = infill(fold_name(key, "spans"), moved, mask, mask_token=MASK, rate=0.5)
    np.testing.assert_array_equal(noisy, expected[0])
    np.testing.assert_array_equal(real, expected[1])
    (before, there, read, read_mask), _ = nets.asked("text.decode")
    np.testing.assert_array_equal(before, tokens[:, :-1])
    np.testing.assert_array_equal(there, mask[:, :-1])
    assert read is states and read_mask is real


def test_settings_that_make_no_sense():
    with pytest.raises(UserError, match=r"rate=1\.5: must be from 0 to 1"):
        Denoising(source="s", rate=1.5)
    with pytest.raises(UserError, match="mean_span=0: must be above 0"):
        Denoising(source="s", mean_span=0)
