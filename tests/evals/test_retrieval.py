"""Retrieval on embeddings whose right answers are known."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from taichu_jax.data.languages import INDEX
from taichu_jax.evals import ranking, retrieval
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.training.nets import BoundNets
from tests.evals import tiny


def items(count=6):
    rng = np.random.default_rng(0)
    fields = {
        "concept": np.arange(2 * count) % count,
        "lang": np.repeat([INDEX["fr"], INDEX["ro"]], count),
        "text": np.arange(2 * count)[:, None] + np.zeros((1, 3), int),
        **{f"has_{m}": np.ones(2 * count, bool) for m in ("text", "image", "audio")},
    }
    unit = rng.normal(size=(2 * count, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return fields, unit.astype(np.float32)


def test_candidates_are_of_one_language_and_have_the_modalities():
    fields, _ = items()
    fields["has_audio"][2] = False
    assert retrieval.complete(fields, "fr", ("text", "image")).tolist() == [0, 1, 2, 3, 4, 5]
    assert retrieval.complete(fields, "fr", ("text", "audio")).tolist() == [0, 1, 3, 4, 5]
    assert retrieval.complete(fields, "ro", ("audio",)).tolist() == [6, 7, 8, 9, 10, 11]


def test_same_concept_and_same_words_are_right():
    fields, unit = items()
    fields["concept"][1] = fields["concept"][0]
    fields["text"][3] = fields["text"][2]
    fields["text"][5], fields["has_text"][5] = fields["text"][4], False  # no words: no same words
    rows = retrieval.complete(fields, "fr", ("image",))
    _, right = retrieval.compare(fields, {"image": unit, "text": unit}, rows, ("image",), "text")
    expected = np.eye(6, dtype=bool)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = True
    assert (right == expected).all()


def test_a_pair_is_the_normalised_sum_and_finds_what_neither_alone_finds():
    fields, unit = items()
    first, second = unit.copy(), unit.copy()
    first[:, 4:] = 0  # each modality knows half of it
    second[:, :4] = 0
    embeddings = {"text": first, "audio": second, "image": unit}
    rows = retrieval.complete(fields, "fr", ("text", "image", "audio"))
    scores, right = retrieval.compare(fields, embeddings, rows, ("text", "audio"), "image")
    assert np.allclose(scores, unit[:6] @ unit[:6].T, atol=1e-5)
    assert ranking.ranking(scores, right)["R@1"] == 100


@pytest.mark.parametrize("split", ["test", "test_recordings"])
def test_evaluation_against_a_loop(tmp_path, split):
    run = tiny.run(tmp_path)
    evaluation = retrieval.Retrieval(
        stream=tiny.Things(), languages=tiny.LANGUAGES, splits=(split,), examples=2, answers=2
    )
    result = evaluation.run(run, tmp_path)
    table = result["splits"][split]
    assert len(table) == (9 if split == "test" else 7)
    assert ("text->image" in table) == (split == "test")
    entry = table["audio->image"]
    assert entry["candidates"] == {"fr": 6, "ro": 6}
    assert entry["chance"]["R@1"] == pytest.approx(100 / 6)
    for language in tiny.LANGUAGES:
        ranks = ranks_by_loop(language)
        assert entry["languages"][language]["R@1"] == pytest.approx(100 * np.mean(ranks == 1))
        assert entry["languages"][language]["median"] == pytest.approx(np.median(ranks))
    example = result["examples"][0]
    assert (tmp_path / example["query"]["audio"]).is_file()
    assert len(example["found"]) == 2 and 1 <= example["rank"] <= 6
    assert (example["rank"] > 2) == (not any(item["right"] for item in example["found"]))


@jax.jit
def embeddings_of_one(params, batch):
    nets = BoundNets(tiny.run(pathlib.Path()).experiment.networks, params)
    encoded = Encoders().encode(nets, batch)
    return {m: Encoders().embed(nets, m, x)[0] for m, x in encoded.items()}


@functools.cache
def ranks_by_loop(language):
    """Voice to picture, one item at a time through the networks; the same for both splits."""
    run = tiny.run(pathlib.Path())
    batches = tiny.Things(languages=(language,), batch_size=1).epoch(None, run.tokenizer)
    found = [jax.device_get(embeddings_of_one(run.params, batch)) for batch in batches]
    ranks = []
    for i, query in enumerate(found):
        scores = [float(query["audio"] @ answer["image"]) for answer in found]
        ranks.append(1 + sum(s > scores[i] for s in scores))
    return np.array(ranks)
