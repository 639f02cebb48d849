"""BEiT's loss against the formula in loops, with networks that return what they are told."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.objectives.vision.beit import BEiT

CODES, DRAW = 7, np.random.default_rng(4)
STATES = DRAW.normal(size=(3, 1 + 12, 5)).astype(np.float32)
SCORES = DRAW.normal(size=(5, CODES)).astype(np.float32)
GRID = DRAW.integers(0, CODES, (3, 3, 4))


class FakeNets:
    step, entries = jnp.int32(0), CODES

    def __call__(self, name, value, mask=None):
        if name == "image":
            self.mask = np.asarray(mask)
            return SimpleNamespace(tokens=jnp.asarray(STATES))
        assert name == "beit_head" and value.shape == (3, 12, 5)
        return value @ SCORES

    def frozen(self, name, images, method):
        assert (name, method) == ("image_tokeniser", "codes")
        self.seen = np.asarray(images)
        return jnp.asarray(GRID)

    def module(self, name):
        assert name == "image_tokeniser"
        return SimpleNamespace(entries=self.entries)


def run(present=(True, True, True), seed=0, **fields):
    nets = FakeNets()
    objective = BEiT(source="s", patch=4, least=2, present="has_image", **fields)
    images = DRAW.uniform(size=(3, 12, 16, 3)).astype(np.float32)
    batch = {"image": jnp.asarray(images), "has_image": jnp.array(present)}
    return objective.loss(nets, batch, None, jax.random.key(seed)), nets, images


@pytest.mark.parametrize("present", [(True, True, True), (True, False, True), (False,) * 3])
def test_loss_is_the_formula(present):
    loss, nets, images = run(present)
    np.testing.assert_array_equal(nets.seen, images)
    losses, right = [], []
    for b in range(3):
        for i in range(12):
            if present[b] and nets.mask[b, i]:
                scores = np.float64(STATES[b, 1 + i]) @ SCORES
                code = GRID[b, i // 4, i % 4]
                losses.append(np.log(np.exp(scores).sum()) - scores[code])
                right.append(scores.argmax() == code)
    np.testing.assert_allclose(loss.value, np.mean(losses) if losses else 0.0, rtol=1e-5)
    total, count = loss.metrics["accuracy"]
    assert count == len(right) and total == sum(right)
    assert nets.mask.sum(1).max() <= 4  # int(0.4 * 12)
    shares = np.bincount(GRID[np.array(present)].reshape(-1), minlength=CODES)
    if losses:
        p = shares[shares > 0] / shares.sum()
        perplexity = np.exp(-(p * np.log(p)).sum())
        np.testing.assert_allclose(loss.metrics["code_perplexity"][0], perplexity, rtol=1e-5)


def test_the_tokeniser_may_see_another_size():
    _, nets, _ = run(token_scale=0.5)
    assert nets.seen.shape == (3, 6, 8, 3) and nets.seen.min() >= 0 and nets.seen.max() <= 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rate": 0.0}, "rate=0.0: must be above 0"),
        ({"aspect": 2.0}, "aspect=2.0: must be above 0 and at most 1"),
        ({"least": 0}, "least=0: must be 1 or more"),
    ],
)
def test_wrong_settings(fields, told):
    with pytest.raises(UserError, match=told):
        BEiT(source="s", **fields)


def test_grids_that_do_not_fit():
    images = {"image": jnp.zeros((3, 16, 16, 3))}
    with pytest.raises(UserError, match=r"BEiT\(patch=4.*4 x 4 patches, but .* gives 3 x 4 codes"):
        BEiT(source="s", patch=4).loss(FakeNets(), images, None, jax.random.key(0))
    images = {"image": jnp.zeros((3, 12, 16, 3))}
    with pytest.raises(UserError, match=r"least=16: .* rate=0.4 of 3 x 4; must be at most 4"):
        BEiT(source="s", patch=4).loss(FakeNets(), images, None, jax.random.key(0))


def test_a_head_of_another_size_than_the_codebook():
    nets, images = FakeNets(), {"image": jnp.zeros((3, 12, 16, 3))}
    nets.entries = CODES + 1
    with pytest.raises(UserError, match="'beit_head': scores 7 codes, but 'image_tokeniser' has 8"):
        BEiT(source="s", patch=4, least=2).loss(nets, images, None, jax.random.key(0))
