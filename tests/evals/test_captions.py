"""Scores against hand cases and the edit distance; the evaluation with random weights."""

import numpy as np
import pytest

from taichu_jax.evals import captions
from tests.evals import tiny


def distance(a, b):
    """Edit distance of two lists by the textbook recursion."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(len(a)):
        for j in range(len(b)):
            swap = table[i, j] + (a[i] != b[j])
            table[i + 1, j + 1] = min(swap, table[i, j + 1] + 1, table[i + 1, j] + 1)
    return table[-1, -1]


def test_scores_of_hand_cases():
    references = ["Une pomme rouge.", "Le chat", "Un éléphant"]
    written = ["une pomme verte", "le chat!", ""]
    got = captions.scores(references, written)
    assert got["exact"] == pytest.approx(100 / 3)
    pairs = [(captions.plain_words(a).split(), captions.plain_words(b).split())
             for a, b in zip(references, written, strict=True)]  # fmt: skip
    errors = sum(distance(a, b) for a, b in pairs)
    assert got["WER"] == pytest.approx(100 * errors / sum(len(a) for a, _ in pairs))
    assert captions.scores(references, references)["chrF"] == pytest.approx(100)
    assert captions.scores(["abc"], ["xyz"])["chrF"] == 0
    assert np.isnan(captions.scores(["!"], ["xyz"])["WER"])  # nothing to be wrong about


def test_evaluation_reports_every_subset_beside_another_item(tmp_path):
    evaluation = captions.Captions(
        stream=tiny.Things(), languages=tiny.LANGUAGES, splits=("test",), examples=3
    )
    result = evaluation.run(tiny.run(tmp_path), tmp_path)
    table = result["splits"]["test"]
    assert list(table) == ["image", "audio", "image+audio", "another item"]
    assert set(table["image"]["languages"]) == set(tiny.LANGUAGES)
    # Words of another item are never the item's own, but of the same language.
    assert table["another item"]["mean"]["exact"] == 0
    assert table["another item"]["mean"]["WER"] == pytest.approx(50)
    assert len(result["examples"]) == 3
    for example in result["examples"]:
        assert example["reference"].startswith(example["language"])
        assert set(example["written"]) == {"image", "audio", "image+audio"}
        assert (tmp_path / example["image"]).is_file() and (tmp_path / example["audio"]).is_file()
