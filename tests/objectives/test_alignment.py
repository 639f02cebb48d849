"""Contrastive alignment against its formula in NumPy loops, with fixed encoders."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.encoders import ClassTokenEncoders
from tests import batches
from tests.fakes import FakeNets

BATCH, WIDTH, SPACE, SCALE = 9, 5, 3, 7.0
LENGTHS = {"text": batches.LENGTH, "image": 4, "audio": 8}


def example(seed=0):
    """(batch, tokens, masks, projections): rows that lack modalities, concepts that repeat."""
    rng = np.random.default_rng(seed)
    batch = batches.triplets(BATCH, seed)
    batch["has_image"][3] = batch["has_audio"][4] = batch["has_text"][5] = False
    batch["concept"] = rng.integers(0, 5, BATCH).astype(np.int32)
    shapes = {k: (BATCH, n, WIDTH) for k, n in LENGTHS.items()}
    tokens = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    masks = {k: rng.uniform(size=s[:2]) < 0.7 for k, s in shapes.items()}
    for mask in masks.values():
        mask[:, 0] = True
    matrices = {k: rng.normal(size=(WIDTH, SPACE)).astype(np.float32) for k in LENGTHS}
    return batch, tokens, masks, matrices


def run(batch, tokens, masks, matrices, **fields):
    def encoder(name):
        return lambda *_: Encoded(tokens=jnp.asarray(tokens[name]), mask=jnp.asarray(masks[name]))

    functions = {k: encoder(k) for k in LENGTHS}
    functions |= {f"{k}_projection": lambda x, m=m: x @ m for k, m in matrices.items()}
    nets = FakeNets(**functions, scale=lambda: jnp.float32(SCALE))
    objective = ContrastiveAlignment(source="s", **fields)
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    return objective.loss(nets, batch, None, jax.random.key(0)), nets


def reference(batch, tokens, masks, matrices, modalities):
    """(loss, {'a_to_b': (right, count)}) by loops over pairs of modalities, rows and candidates."""
    vectors = {}
    for name in modalities:
        for i in range(BATCH):
            mean = np.mean(
                [t for t, m in zip(tokens[name][i], masks[name][i], strict=True) if m], 0
            )
            vector = mean.astype(np.float64) @ matrices[name]
            vectors[name, i] = vector / np.sqrt((vector**2).sum())
    per_pair, accuracies = [], {}
    for a, b in itertools.combinations(modalities, 2):
        losses = []
        for query, other in ((a, b), (b, a)):
            right = count = 0
            for i in range(BATCH):
                if not (batch[f"has_{a}"][i] and batch[f"has_{b}"][i]):
                    continue
                scores = {
                    j: SCALE * vectors[query, i] @ vectors[other, j]
                    for j in range(BATCH)
                    if batch[f"has_{other}"][j]
                    and (j == i or batch["concept"][i] != batch["concept"][j])
                }
                losses.append(np.log(sum(np.exp(s) for s in scores.values())) - scores[i])
                right += max(scores, key=scores.get) == i
                count += 1
            accuracies[f"{query}_to_{other}_accuracy"] = (right, count)
        per_pair.append(np.mean(losses))
    return np.mean(per_pair), accuracies


@pytest.mark.parametrize(
    "modalities", [("text", "image", "audio"), ("text", "audio"), ("image", "text")], ids="-".join
)
def test_loss_is_the_formula(modalities):
    arguments = example()
    loss, nets = run(*arguments, modalities=modalities)
    value, accuracies = reference(*arguments, modalities)
    np.testing.assert_allclose(loss.value, value, rtol=1e-5)
    for name, want in accuracies.items():
        assert loss.metrics[name] == want, name
    assert loss.metrics["logit_scale"] == (SCALE, 1)
    assert {name.removesuffix("_projection") for name, *_ in nets.calls} == {*modalities, "scale"}
    for name in modalities:
        assert 0.3 < loss.metrics[f"{name}_feature_std"][0] < 1.1


def test_what_a_row_lacks_is_neither_query_nor_candidate():
    batch, tokens, masks, matrices = example()
    want = run(batch, tokens, masks, matrices)[0]
    spoiled = {}
    for name, value in tokens.items():
        noise = 100 * np.random.default_rng(5).normal(size=value.shape).astype(np.float32)
        spoiled[name] = np.where(batch[f"has_{name}"][:, None, None], value, noise)
        assert not batch[f"has_{name}"].all()
    got = run(batch, spoiled, masks, matrices)[0]
    np.testing.assert_allclose(got.value, want.value, rtol=1e-6)


def test_a_concept_twice_is_no_negative():
    """With one concept in the whole batch every row has only its own column left: nothing to learn."""
    batch, *rest = example()
    same = run(batch | {"concept": np.zeros(BATCH, np.int32)}, *rest)[0]
    np.testing.assert_allclose(same.value, 0, atol=1e-6)
    different = run(batch | {"concept": np.arange(BATCH, dtype=np.int32)}, *rest)[0]
    assert different.value > run(batch, *rest)[0].value > same.value


def test_a_pair_that_no_row_has_adds_nothing():
    batch, *rest = example()
    batch |= {"has_text": np.arange(BATCH) < 4, "has_image": np.arange(BATCH) >= 4}
    batch["has_audio"] = np.ones(BATCH, bool)
    loss = run(batch, *rest)[0]
    assert loss.metrics["text_to_image_accuracy"] == (0, 0)
    np.testing.assert_allclose(
        loss.value,
        np.mean([0, *(reference(batch, *rest, (m, "audio"))[0] for m in ("text", "image"))]),
        rtol=1e-5,
    )


def test_class_tokens_are_embeddings_too():
    """The first token, projected, of length 1; the others and the mask do not matter."""
    _, tokens, masks, projections = example()
    nets = FakeNets(text_projection=lambda x: x @ projections["text"])
    encoded = Encoded(tokens=jnp.asarray(tokens["text"]), mask=jnp.asarray(masks["text"]))
    found = ClassTokenEncoders().embed(nets, "text", encoded)
    expected = tokens["text"][:, 0] @ projections["text"]
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
