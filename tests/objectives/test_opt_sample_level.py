"""OPT's matching: exact labels and sources, then the formula in NumPy with fixed networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.opt_sample_level import OPTSampleLevel, build_matches
from taichu_jax.ops.random import fold_name
from taichu_jax.training.state import Batch
from tests import batches
from tests.fakes import FakeNets

DRAWS = 4000
CONCEPT = np.array([0, 0, 1, 1, 2, 3, 4, 5], np.int32)
COMPLETE = np.array([True, True, True, True, True, True, False, True])

# Class -> which of text, image and audio are another example's, from the paper's Fig. 1 and from the
# released code's `get_random_id`; equal letters are one example.
MEANINGS = {
    "paper": {0: "...", 1: "a..", 2: "..a", 3: ".a.", 4: ".ab"},
    "released": {0: ".aa", 1: ".a.", 2: "..a", 3: ".ab", 4: "..."},
}


@functools.cache
def draws(variant):
    def draw(key):
        return build_matches(key, jnp.asarray(CONCEPT), jnp.asarray(COMPLETE), variant)

    keys = jax.random.split(jax.random.key(0), DRAWS)
    return tuple(map(np.asarray, jax.jit(jax.vmap(draw))(keys)))


@pytest.mark.parametrize("variant", MEANINGS)
def test_sources_are_what_the_class_says(variant):
    labels, sources, valid = draws(variant)
    assert labels.shape == valid.shape == (DRAWS, 8) and sources.shape == (DRAWS, 8, 3)
    np.testing.assert_array_equal(valid, np.tile(COMPLETE, (DRAWS, 1)))
    for label, pattern in MEANINGS[variant].items():
        drawn, row = np.nonzero((labels == label) & valid)
        taken = {letter: [] for letter in set(pattern)}
        for letter, column in zip(pattern, sources[drawn, row].T, strict=True):
            taken[letter].append(column)
        for letter, columns in taken.items():
            assert all((c == columns[0]).all() for c in columns), (label, letter)
            if letter == ".":
                np.testing.assert_array_equal(columns[0], row)
            else:
                assert (CONCEPT[columns[0]] != CONCEPT[row]).all()
                assert COMPLETE[columns[0]].all()
        if {"a", "b"} <= set(taken):
            assert (CONCEPT[taken["a"][0]] != CONCEPT[taken["b"][0]]).all()


@pytest.mark.parametrize("variant", MEANINGS)
def test_classes_are_uniform(variant):
    labels, _, valid = draws(variant)
    counts = np.bincount(labels[valid], minlength=5)
    expected = valid.sum() / 5
    assert (np.square(counts - expected) / expected).sum() < 18.5  # chi-square, 4 dof, p = 0.001


def test_replacements_are_uniform():
    """Row 4 may take its picture from any complete row of another concept, each equally often."""
    labels, sources, _ = draws("paper")
    taken = sources[labels[:, 4] == 3, 4, 1]
    counts = np.bincount(taken, minlength=8)
    candidates = np.array([0, 1, 2, 3, 5, 7])
    assert counts[[4, 6]].sum() == 0
    expected = len(taken) / len(candidates)
    assert (np.square(counts[candidates] - expected) / expected).sum() < 20.5  # 5 dof, p = 0.001


@pytest.mark.parametrize("variant", MEANINGS)
def test_rows_without_a_replacement_count_only_where_none_is_needed(variant):
    keys = jax.random.split(jax.random.key(1), 200)
    match = jax.jit(jax.vmap(build_matches, (0, None, None, None)), static_argnums=3)
    needs = np.array([len(set(p) - {"."}) for p in MEANINGS[variant].values()])
    for concepts, others in (([7, 7, 7, 7], 0), ([7, 7, 8, 8], 1), ([7, 7, 8, 9], 2)):
        labels, _, valid = match(keys, jnp.array(concepts), jnp.ones(4, bool), variant)
        np.testing.assert_array_equal(valid, needs[labels] <= others)
    # The only row of another concept lacks a modality: it neither counts nor replaces.
    labels, _, valid = match(keys, jnp.array([7, 7, 7, 8]), jnp.arange(4) < 3, variant)
    np.testing.assert_array_equal(valid[:, :3], needs[labels[:, :3]] == 0)
    assert not valid[:, 3].any()


class Model:
    """A fusion that writes the three first tokens of a row side by side into [CLS]; a linear head."""

    def __init__(self, size, seed=0):
        rng = np.random.default_rng(seed)
        self.tokens = {
            k: rng.normal(size=(size, n, 2)).astype(np.float32)
            for k, n in (("text", 3), ("image", 4), ("audio", 5))
        }
        self.head = rng.normal(size=(6, 5)).astype(np.float32)

    def nets(self):
        def encoder(name):
            tokens = jnp.asarray(self.tokens[name])
            return lambda *_: Encoded(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool))

        def fusion(text, image, audio):
            first = jnp.concatenate([x.tokens[:, :1] for x in (text, image, audio)], -1)
            return Encoded(tokens=first, mask=jnp.ones(first.shape[:2], bool))

        encoders = {name: encoder(name) for name in self.tokens}
        return FakeNets(**encoders, fusion=fusion, matching=lambda x: x @ self.head)

    def scores(self, sources):
        first = [x[s, 0] for x, s in zip(self.tokens.values(), sources, strict=True)]
        return np.concatenate(first).astype(np.float64) @ self.head


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("variant", MEANINGS)
def test_loss_is_the_formula(variant, share):
    """BCE over five sigmoids (paper) or softmax cross entropy (released), mean over counted rows."""
    size, seen_labels = 12, set()
    batch = {k: jnp.asarray(v) for k, v in batches.triplets(size, 3).items()}
    model, used = Model(size), round(share * size)
    complete = np.all([batch[f"has_{m}"] for m in model.tokens], 0)[:used]
    assert 3 <= complete.sum() < used
    objective = OPTSampleLevel(source="s", variant=variant, share=share)
    for seed in range(3):
        rng = jax.random.key(seed)
        loss = objective.loss(model.nets(), batch, None, rng)
        labels, sources, valid = map(
            np.asarray,
            build_matches(fold_name(rng, "classes"), batch["concept"][:used], complete, variant),
        )
        terms, right = [], 0
        for i in np.flatnonzero(valid):
            scores = model.scores(sources[i])
            if variant == "paper":
                p = 1 / (1 + np.exp(-scores))
                own = [p[k] if k == labels[i] else 1 - p[k] for k in range(5)]
                terms.append(-np.mean(np.log(own)))
            else:
                terms.append(np.log(np.exp(scores).sum()) - scores[labels[i]])
            right += scores.argmax() == labels[i]
            seen_labels.add(int(labels[i]))
        np.testing.assert_allclose(loss.value, np.mean(terms), rtol=1e-5)
        assert loss.metrics["accuracy"] == (right, len(terms))
    assert len(seen_labels) >= 4


def test_nothing_complete():
    batch = {k: jnp.asarray(v) for k, v in batches.triplets(4).items()}
    batch["has_audio"] = jnp.zeros(4, bool)
    loss = OPTSampleLevel(source="s").loss(Model(4).nets(), batch, None, jax.random.key(0))
    assert loss.value == 0 and loss.metrics["accuracy"] == (0, 0)


def test_a_missing_field_is_named():
    objective = OPTSampleLevel(source="pairs")
    batch = {k: jnp.asarray(v) for k, v in batches.triplets(4).items() if k != "concept"}
    batch = Batch.of(objective, "match", {"pairs": batch})
    with pytest.raises(UserError, match="stream 'pairs' has no field 'concept'"):
        jax.eval_shape(
            lambda: objective.loss(Model(4).nets(), batch, None, jax.random.key(0)).value
        )


def test_unknown_variant():
    with pytest.raises(UserError, match="variant='papers'; did you mean 'paper'"):
        OPTSampleLevel(source="s", variant="papers")
