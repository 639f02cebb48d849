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


def test_bleu_cider_and_character_errors_of_hand_cases():
    references = ["The cat sat on the mat.", "A small black dog"]
    written = ["the cat sat on a mat", "a dog"]
    got = captions.scores(references, written)
    # Right of all runs that were written: 7 of 8 words, 3 of 6 pairs, 2 of 4 threes, 1 of 3 fours.
    brevity = np.exp(1 - 10 / 8)
    right = [7 / 8, 3 / 6, 2 / 4, 1 / 3]
    for n in range(1, 5):
        expected = 100 * brevity * np.prod(right[:n]) ** (1 / n)
        assert got[f"BLEU-{n}"] == pytest.approx(expected), n
    edits = [
        (captions.plain_words(a), captions.plain_words(b))
        for a, b in zip(references, written, strict=True)
    ]
    errors = sum(distance(list(a), list(b)) for a, b in edits)
    assert got["CER"] == pytest.approx(100 * errors / sum(len(a) for a, _ in edits))
    words = [[captions.tokens(text) for text in texts] for texts in (references, written)]
    assert got["CIDEr"] == pytest.approx(100 * np.mean(captions.cider_d(*words)))
    nothing = captions.scores(references, ["x", "y"])
    assert nothing["BLEU-1"] == nothing["BLEU-4"] == nothing["CIDEr"] == 0


@pytest.mark.parametrize(
    "text, words",
    [
        ("Une pomme ROUGE.", ["une", "pomme", "rouge"]),
        ("L’arbre d'en Jordi!", ["l", "arbre", "d", "en", "jordi"]),
        ("Ябълка – 2 броя", ["ябълка", "2", "броя"]),
        ("Ένας σκύλος;", ["ένας", "σκύλος"]),
        ("一只黑色的狗。", list("一只黑色的狗")),
        ("Pa\u0302ine caldă", ["pâine", "caldă"]),
    ],
)
def test_words_of_every_script(text, words):
    assert captions.tokens(text) == words


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
