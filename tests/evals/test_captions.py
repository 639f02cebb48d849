"""Greedy decoding against a plain loop, and scores against hand cases and the edit distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.evals import captions
from taichu_jax.models.layers import Encoded
from taichu_jax.ops.vocabulary import CLS, FIRST_TOKEN, PAD, SEP
from taichu_jax.training.nets import BoundNets
from tests.evals import tiny


def test_equals_a_loop_that_decodes_one_token_at_a_time(tmp_path):
    run = tiny.run(tmp_path)
    # A sharp and biased output layer, so that rows differ and some of them end.
    params = dict(run.params["text_decoder"])
    rng = np.random.default_rng(1)
    params["token_embedding"] = jnp.asarray(rng.normal(size=params["token_embedding"].shape))
    params["head_bias"] = jnp.zeros(tiny.VOCAB).at[SEP].set(8.0).at[CLS].set(50.0)
    nets = BoundNets(run.experiment.networks, {"text_decoder": params})
    states = jnp.asarray(rng.normal(size=(6, 5, 16)), jnp.float32)
    memory = Encoded(tokens=states, mask=jnp.arange(5) < jnp.array([[5], [4], [3], [2], [1], [5]]))
    prompt = jnp.full((6, 1), CLS, jnp.int32)
    got = jax.jit(lambda m, p: captions.greedy(nets, "text_decoder", m, p, tiny.LENGTH))(
        memory, prompt
    )

    @jax.jit
    def next_scores(tokens, real, states, mask):
        return nets("text_decoder", tokens, real, states, mask)

    lengths = set()
    for row in range(6):
        tokens = [CLS]
        while len(tokens) < tiny.LENGTH and tokens[-1] != SEP:
            padded = np.array([tokens + [PAD] * (tiny.LENGTH - len(tokens))], np.int32)
            real = np.arange(tiny.LENGTH)[None] < len(tokens)
            own = slice(row, row + 1)
            logits = next_scores(padded, real, states[own], memory.mask[own])
            scores = np.array(logits[0, len(tokens) - 1])
            scores[[i for i in range(FIRST_TOKEN) if i != SEP]] = -np.inf
            tokens.append(int(scores.argmax()))
        lengths.add(len(tokens))
        assert got[row].tolist() == tokens + [PAD] * (tiny.LENGTH - len(tokens))
    assert len(lengths) > 1  # or padding would not be tested, nor the end of the loop


def test_a_prompt_is_kept_and_continued(tmp_path):
    run = tiny.run(tmp_path)
    nets = BoundNets(run.experiment.networks, run.params)
    memory = Encoded(tokens=jnp.ones((2, 3, 16)), mask=jnp.ones((2, 3), bool))
    prompt = jnp.array([[CLS, 80], [CLS, 90]], jnp.int32)
    got = jax.jit(lambda m, p: captions.greedy(nets, "text_decoder", m, p, 5))(memory, prompt)
    assert (got[:, :2] == prompt).all()
    assert ((got[:, 2:] >= FIRST_TOKEN) | (got[:, 2:] == SEP) | (got[:, 2:] == PAD)).all()


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
