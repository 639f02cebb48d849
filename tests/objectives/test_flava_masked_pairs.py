"""FLAVA's losses over pairs against the formulas in loops, with networks that return constants."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal import flava_masked_pairs
from taichu_jax.objectives.multimodal.flava_masked_pairs import FLAVAMaskedPairs, other_texts
from taichu_jax.ops.masking import hide_words
from taichu_jax.ops.vocabulary import FIRST_TOKEN
from tests import batches

BATCH, WIDTH, CODES, DRAWS = 6, 4, 5, 3000
CONCEPT = np.array([0, 0, 1, 2, 3, 4], np.int32)
COMPLETE = np.array([True, True, True, False, True, True])
WEIGHTS = {"matching": 2.0, "mmm_text": 3.0, "mmm_image": 0.5}
DRAW = np.random.default_rng(3)
TEXT = DRAW.normal(size=(BATCH, batches.LENGTH, WIDTH)).astype(np.float32)
IMAGE = DRAW.normal(size=(BATCH, 1 + 16, WIDTH)).astype(np.float32)  # with a class token
CLS = DRAW.normal(size=(BATCH, 1, WIDTH)).astype(np.float32)
GRID = DRAW.integers(0, CODES, (BATCH, 4, 4))
HEADS = {
    "itm_head": DRAW.normal(size=(WIDTH, 2)).astype(np.float32),
    "mmm_text_head": DRAW.normal(size=(WIDTH, batches.VOCAB)).astype(np.float32),
    "mmm_image_head": DRAW.normal(size=(WIDTH, CODES)).astype(np.float32),
}


class FakeNets:
    """The fusion's states are its inputs: of the last layers, which alone it may be given."""

    step, entries = jnp.int32(0), CODES

    def __init__(self):
        self.asked, self.saw = [], {}

    def __call__(self, name, *args, **kwargs):
        self.asked.append(name)
        if name == "text":
            self.saw["corrupted"] = args[0]
            return self.encoded(TEXT, args[1])
        if name == "image":
            self.saw["hidden"] = kwargs["mask"]
            return self.encoded(IMAGE, jnp.ones(IMAGE.shape[:2], bool))
        if name == "fusion":
            image, text = kwargs["image"], kwargs["text"]
            assert len(image.layers) == len(text.layers) == 1
            self.saw["mask"] = text.mask
            states = jnp.concatenate([CLS, image.layers[-1], text.layers[-1]], axis=1)
            return Encoded(tokens=states, mask=None)
        return args[0] @ HEADS[name]

    def frozen(self, name, images, method):
        assert (name, method) == ("image_tokeniser", "codes")
        self.asked.append(name)
        return jnp.asarray(GRID)

    def module(self, name):
        assert name == "image_tokeniser"
        return SimpleNamespace(entries=self.entries)

    @staticmethod
    def encoded(states, mask):
        first = jnp.zeros_like(states)
        return Encoded(tokens=first - 1, mask=mask, layers=(first, jnp.asarray(states)))


def example(complete=COMPLETE):
    batch = batches.text(BATCH, 1) | batches.image(BATCH, 1)
    return batch | {"has_text": np.ones(BATCH, bool), "has_image": complete, "concept": CONCEPT}


def loss_of(batch, nets, **fields):
    settings = {"vocab_size": batches.VOCAB, "patch": 4, "least": 2, "other": 0.5} | fields
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    return FLAVAMaskedPairs(source="s", **settings).loss(nets, batch, None, jax.random.key(0))


@functools.cache
def program():
    """Jitted: a batch to (loss, what the networks saw, what was drawn)."""

    def run(batch):
        nets, drawn = FakeNets(), {}

        def kept(name, call):
            def wrapped(*args, **settings):
                drawn[name] = call(*args, **settings)
                return drawn[name]

            return mock.patch.object(flava_masked_pairs, name, wrapped)

        with kept("other_texts", other_texts), kept("hide_words", hide_words):
            loss = loss_of(batch, nets, **WEIGHTS)
        return loss, nets.saw, drawn

    return jax.jit(run)


def test_heads_that_read_hidden_places_alone_give_the_same():
    class Counting(FakeNets):
        def __init__(self):
            super().__init__()
            self.read = []

        def __call__(self, name, *args, **settings):
            if name in HEADS:
                self.read.append(args[0].shape[:-1])
            return super().__call__(name, *args, **settings)

    def run(batch):
        nets = Counting(), Counting()
        losses = [loss_of(batch, n, chosen_only=i == 1) for i, n in enumerate(nets)]
        words, patches = (nets[1].read[i][1] for i in (1, 2))
        length, count = nets[0].read[1][1], nets[0].read[2][1]
        assert words == math.ceil(0.15 * length) < length and patches == int(0.383 * count) < count
        return losses

    every, chosen = jax.jit(run)(example())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), every, chosen)


def entropy(states, head, label):
    scores = np.float64(states) @ HEADS[head]
    return np.log(np.exp(scores).sum()) - scores[label]


def test_loss_is_the_formula():
    """Three plain means, each over what it counts, weighted."""
    batch = example()
    loss, saw, drawn = jax.tree.map(np.asarray, program()(batch))
    (source, other), (_, chosen), tokens = drawn["other_texts"], drawn["hide_words"], batch["text"]
    assert 0 < other.sum() < COMPLETE.sum()
    terms = {name: [] for name in WEIGHTS}
    right = dict.fromkeys(WEIGHTS, 0)

    def count(name, states, head, label):
        terms[name].append(entropy(states, head, label))
        right[name] += (states @ HEADS[head]).argmax() == label

    for b in range(BATCH):
        np.testing.assert_array_equal(saw["mask"][b], batch["text_mask"][source[b]])
        if not COMPLETE[b]:
            continue
        count("matching", CLS[b, 0], "itm_head", int(not other[b]))
        if other[b]:
            continue
        for i in np.flatnonzero(chosen[b]):
            count("mmm_text", TEXT[b, i], "mmm_text_head", tokens[b, i])
        for i in np.flatnonzero(saw["hidden"][b]):
            count("mmm_image", IMAGE[b, 1 + i], "mmm_image_head", GRID[b, i // 4, i % 4])
    expected = sum(WEIGHTS[name] * np.mean(terms[name]) for name in WEIGHTS)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    for name, values in terms.items():
        np.testing.assert_allclose(loss.metrics[name], (sum(values), len(values)), rtol=1e-5)
        assert loss.metrics[f"{name}_accuracy"] == (right[name], len(values))
    assert loss.metrics["other_share"] == (other.sum(), COMPLETE.sum())
    # 15 % of the words, at least one, and never special ones; 38 % of 16 patches or fewer.
    assert (chosen.sum(1) >= 1).all() and (tokens[chosen] >= FIRST_TOKEN).all()
    np.testing.assert_array_equal(saw["corrupted"][~chosen], tokens[~chosen])
    assert 0 < saw["hidden"].sum(1).max() <= 6


@pytest.mark.parametrize("absent", ["text", "image"])
def test_a_batch_of_one_modality_has_no_loss(absent):
    batch = example(np.ones(BATCH, bool)) | {f"has_{absent}": np.zeros(BATCH, bool)}
    loss, saw, _ = program()(batch)
    assert loss.value == 0
    assert all(loss.metrics[name] == (0, 0) for name in flava_masked_pairs.TERMS)
    assert saw["mask"].any() == (absent == "image")


def test_what_has_no_weight_is_not_asked():
    def asked(**fields):
        nets = FakeNets()
        metrics = jax.eval_shape(lambda: loss_of(example(), nets, **fields).metrics)
        return nets.asked, set(metrics) & set(flava_masked_pairs.TERMS)

    read = ["text", "image", "fusion"]
    assert asked(matching=0.0, mmm_image=0.0) == ([*read, "mmm_text_head"], {"mmm_text"})
    assert asked(mmm_text=0.0, mmm_image=0.0) == ([*read, "itm_head"], {"matching"})


def test_other_texts_are_uniform():
    """Row 2 of another concept than all: any complete row but itself, each a fourth of the draws."""

    def draw(key):
        return other_texts(key, jnp.asarray(CONCEPT), jnp.asarray(COMPLETE), 0.25)

    keys = jax.random.split(jax.random.key(0), DRAWS)
    source, other = map(np.asarray, jax.jit(jax.vmap(draw))(keys))
    rows = np.arange(BATCH)
    np.testing.assert_array_equal(other, source != rows)
    assert not other[:, 3].any()
    count = other[:, COMPLETE].sum()
    deviation = (DRAWS * COMPLETE.sum() * 0.25 * 0.75) ** 0.5
    assert abs(count - 0.25 * DRAWS * COMPLETE.sum()) < 4 * deviation
    drawn, row = np.nonzero(other)
    assert (CONCEPT[source[drawn, row]] != CONCEPT[row]).all() and COMPLETE[source[other]].all()
    counts = np.bincount(source[other[:, 2], 2], minlength=BATCH)[[0, 1, 4, 5]]
    expected = counts.sum() / 4
    assert (np.square(counts - expected) / expected).sum() < 16.3  # chi-square, 3 dof, p = 0.001


def test_a_batch_of_one_concept_keeps_its_texts():
    alone = jnp.zeros(BATCH, jnp.int32), jnp.asarray(COMPLETE)
    source, other = jax.jit(lambda: other_texts(jax.random.key(0), *alone, 1.0))()
    np.testing.assert_array_equal(source, np.arange(BATCH))
    assert not other.any()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"matching": -1.0}, "matching=-1.0: must be 0 or more"),
        ({"matching": 0, "mmm_text": 0, "mmm_image": 0}, "one must be above 0"),
        ({"other": 0.0}, "other=0.0: must be above 0 and at most 1"),
        ({"rate": 1.5}, "rate=1.5: must be above 0 and at most 1"),
        ({"least": 0}, "least=0: must be 1 or more"),
    ],
)
def test_wrong_settings(fields, told):
    with pytest.raises(UserError, match=told):
        FLAVAMaskedPairs(source="s", vocab_size=20, **fields)


def test_a_head_of_another_size_than_the_codebook():
    nets = FakeNets()
    nets.entries = CODES + 1
    with pytest.raises(UserError, match="'mmm_image_head': scores 5 codes, but 'image_tokeniser'"):
        jax.eval_shape(lambda: loss_of(example(), nets).value)
