"""Every task on planted data, with the number that must come out; measures against other definitions."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.probing.baselines import patch_of, raw
from taichu_jax.probing.encoder import Encoder, means
from taichu_jax.probing.examples import fifth, thinned
from taichu_jax.probing.readers import NO_WORD, TextReader
from taichu_jax.probing.study import plan
from taichu_jax.probing.tasks.base import labelled
from taichu_jax.probing.tasks.classification import Classification
from taichu_jax.probing.tasks.keyword import commonest_within, keywords
from taichu_jax.probing.tasks.ranks import chance_average_precision, mean_average_precision
from taichu_jax.probing.tasks.retrieval import Retrieval
from taichu_jax.probing.tasks.segmentation import Segmentation, intersection_over_union
from taichu_jax.probing.tasks.tagging import Tagging
from taichu_jax.probing.tasks.translation import Translation
from tests.probing.toy import Toy, picture, rows_of, scores, seeing, study

DRAW = np.random.default_rng(0)


def colours(count: int, test: int, misleading: bool = False) -> Toy:
    """Red or blue pictures of two classes; in the test part red and blue change places if misleading."""
    total = count + test
    label = np.arange(total) % 2
    shown = np.where(np.arange(total) >= count, 1 - label, label) if misleading else label
    pictures = [picture((200 * int(x), int(DRAW.integers(0, 99)), 200 * int(1 - x))) for x in shown]
    splits = ["train"] * count + ["test"] * test
    rows = rows_of([{"label": "ab"[x]} for x in label], splits, [str(i) for i in range(total)])
    return Toy("image", rows, pictures)


def blind_then_seeing(patches):
    """Two layers: the first sees nothing, the second everything."""
    return [jnp.zeros_like(patches), patches]


@pytest.fixture(scope="module")
def misled():
    """What layers are good for in training is wrong in the test: nobody may look at it to choose."""
    examples = colours(40, 20, misleading=True)
    examples.contents[3] = None
    found = study(seeing(blind_then_seeing), examples, scratch_steps=0)
    return Classification(column="label").run(found), found


def test_the_layer_is_chosen_on_training_examples_only(misled):
    result, _ = misled
    row = next(row for row in result["rows"] if row["kind"] == "encoder")
    assert row["layers"]["linear"] == row["layers"]["k-NN"] == "last"
    assert row["scores"] == dict.fromkeys(("linear", "k-NN", "attentive", "weighted sum"), 0.0)
    curve = next(c for c in result["curves"] if c["system"] == "planted" and c["head"] == "linear")
    assert curve["values"][1] == 100.0 and curve["layers"] == ["input", "last"]
    assert scores(result, "commonest label")["linear"] == 50.0
    assert scores(result, "raw input: pixels")["linear"] == 0.0


def test_a_damaged_example_is_left_out_and_named(misled):
    result, found = misled
    assert result["train"] == 39 and result["test"] == 20
    assert found.harm.note() == "1 damaged left out: example 3 (planted damage)"


def test_classes_that_are_too_rare_are_not_asked():
    examples = colours(40, 6)
    rare = {0: "c", 1: "c", 42: "c"}
    for i, name in rare.items():
        examples.rows[i].labels["label"] = name
    found = labelled(
        study(seeing(blind_then_seeing), examples),
        lambda i: examples.rows[i].labels["label"],
        "test",
    )
    assert (len(found.train), len(found.test)) == (38, 5) and found.classes == ["a", "b"]
    assert [found.classes[n] for n in found.labels[:4]] == ["a", "b", "a", "b"]
    assert found.notes()[0].startswith("1 test examples of a class with fewer than 5")
    with pytest.raises(UserError, match="of 0 classes; needed"):
        Classification(column="other").run(study(seeing(blind_then_seeing), examples))


def test_average_precision_is_that_of_scikit_learn():
    similarity, right = DRAW.normal(size=(7, 12)), DRAW.random((7, 12)) < 0.3
    right[0] = False  # is not asked
    wanted = [
        average_precision_score(r, s) for r, s in zip(right, similarity, strict=True) if r.any()
    ]
    assert mean_average_precision(similarity, right) == pytest.approx(100 * np.mean(wanted))


@pytest.mark.parametrize("answers", [1, 2, 4])
def test_chance_is_the_mean_over_all_orders(answers):
    right = np.arange(5) < answers
    orders = [np.array(order)[None] for order in itertools.permutations(np.arange(5.0))]
    wanted = np.mean([mean_average_precision(order, right[None]) for order in orders])
    assert chance_average_precision(right[None]) == pytest.approx(wanted)


def test_retrieval_finds_the_same_colour():
    result = Retrieval(column="label").run(study(seeing(blind_then_seeing), colours(20, 10)))
    assert scores(result, "planted") == {"mAP": 100.0, "R@1": 100.0}
    assert 45 < scores(result, "random order")["mAP"] < 60 and not result["notes"][:-1]


def test_intersection_over_union():
    guess, truth = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert intersection_over_union(guess, truth) == pytest.approx(100 / 3)
    assert intersection_over_union(guess * 0, truth * 0) == 100.0


def test_segmentation_reads_patches_in_their_places():
    grids = [
        np.array(g).reshape(2, 2) for g in itertools.product([0, 1], repeat=4) if 0 < sum(g) < 4
    ]
    shapes = [
        g for g in grids if g.any(0).all() and g.any(1).all()
    ]  # others are opaque when cropped
    pictures = [picture((250, 250, 10), shapes[i % len(shapes)]) for i in range(40)]
    pictures.append(picture((9, 9, 9)))  # opaque: says nothing
    splits = ["train"] * 30 + ["test"] * 10 + ["train"]
    rows = rows_of([{}] * 41, splits, [str(i) for i in range(41)])

    def yellow(patches):
        class_token = jnp.full_like(patches[:, :1], 7.0)
        colour = patches.reshape(*patches.shape[:2], 16, 3).mean(2)
        seen = jnp.all(jnp.abs(colour - jnp.array([250, 250, 10]) / 255) < 0.01, -1)
        states = jnp.broadcast_to(seen[..., None], patches.shape).astype(jnp.float32)
        return [jnp.zeros((len(patches), 5, 48)), jnp.concatenate([class_token, states], 1)]

    found = study(seeing(yellow), Toy("image", rows, pictures), scratch_steps=100)
    result = Segmentation().run(found)
    assert scores(result, "planted")["linear"] == 100.0
    assert scores(result, "trained from scratch")["linear"] == 100.0  # only a head is to be learnt
    truth = np.concatenate([shapes[i % len(shapes)].reshape(-1) for i in range(30, 40)])
    assert scores(result, "all is foreground")["linear"] == pytest.approx(100 * truth.mean())
    assert (result["train"], result["test"]) == (30, 10)


def test_keywords():
    said = [frozenset(x.split()) for x in ["signs hands"] * 9 + ["house"] * 7 + ["red house"] * 6]
    assert keywords(said, 5) == {"house", "hands"}  # signs come with hands, red is too short
    assert keywords(said, 1) == {"house"}
    labels = np.array([0, 0, 1, 1, 1, 2])
    found = commonest_within(["fr", "fr", "fr", "ro", "ro", "ro"], labels, ["ro", "fr", "xx"])
    assert found.tolist() == [1, 0, 1]


def reading(encode, states, length=6, width=4) -> Encoder:
    """An encoder of texts whose last layer is a table of ids."""
    table = jnp.asarray(states)

    def hidden_states(params, inputs):
        del params
        ids, mask, _ = inputs
        last = table[ids]
        return Encoded(tokens=last, mask=mask, layers=(jnp.zeros_like(last),))

    return Encoder("planted", "text", TextReader(encode, length), hidden_states, {}, dict, means)


def test_translations_are_found_though_languages_lie_apart():
    things, languages = 24, ("en", "fr")
    texts = [f"{lang}{thing}" for thing in range(things) for lang in languages]
    labels = [{"language": text[:2]} for text in texts]
    groups = [text[2:] for text in texts]
    splits = ["train" if int(g) < 16 else "test" for g in groups]
    meaning = DRAW.normal(size=(things, 4))
    table = np.stack([meaning[int(t[2:])] + 50.0 * (t[:2] == "fr") for t in texts])
    encoder = reading(lambda words: ([texts.index(words[0])], [0]), table)
    result = Translation().run(study(encoder, Toy("text", rows_of(labels, splits, groups), texts)))
    assert scores(result, "planted")["R@1"] == 100.0
    assert scores(result, "random order")["R@1"] == pytest.approx(100 / 8)
    assert result["rows"][-1]["layers"]["R@1"] == "last" and "2 pairs" in result["title"]


def test_tags_belong_to_their_words():
    vocabulary = ["the", "dog", "barks", "cat"]
    kinds = {"the": "D", "dog": "N", "cat": "N", "barks": "V"}
    sentences = [[vocabulary[i] for i in DRAW.integers(0, 4, 3)] for _ in range(30)]
    contents = [(words, [kinds[w] for w in words]) for words in sentences]

    def encode(words):  # two pieces a word between two special ids
        ids = [1 + vocabulary.index(word) for word in words for _ in range(2)]
        owners = [n for n in range(len(words)) for _ in range(2)]
        return [0, *ids, 0], [NO_WORD, *owners, NO_WORD]

    table = np.concatenate([np.full((1, 4), 9.0), np.eye(4)])
    splits = ["train"] * 24 + ["test"] * 6
    rows = rows_of([{"tags": " "}] * 30, splits, [str(i) for i in range(30)])
    encoder = reading(encode, table, length=7)  # the last piece of the third word is cut off
    result = Tagging().run(study(encoder, Toy("text", rows, contents), scratch_steps=200))
    assert scores(result, "planted")["linear"] == 100.0
    assert scores(result, "trained from scratch")["linear"] == 100.0
    assert scores(result, "commonest tag of the word")["linear"] == 100.0
    assert 20 < scores(result, "commonest tag")["linear"] < 80
    assert "18 asked" in result["notes"][0]


def test_a_bag_of_characters_counts_characters():
    rows = rows_of([{}] * 2, ["train"] * 2, ["0", "1"])
    examples = Toy("text", rows, ["aab", "xaz"])
    encoder = reading(lambda words: ([0], [0]), np.zeros((1, 4)))
    bag = raw(encoder, examples, [0])  # x and z were never seen
    arrays = [
        np.stack(x) for x in zip(*(bag.reader.read(examples, i) for i in (0, 1)), strict=True)
    ]
    found = bag.pool(bag.hidden_states({}, arrays), arrays)[0]
    np.testing.assert_allclose(found, [[0, 2 / 3, 1 / 3], [2 / 3, 1 / 3, 0]], atol=1e-6)


def test_states_must_lie_on_a_grid():
    assert patch_of(seeing(blind_then_seeing)) == 4
    with pytest.raises(UserError, match="do not lie on a square grid"):
        patch_of(seeing(lambda patches: [patches[:, :3]]))


def test_development_parts_never_cut_groups():
    groups = [str(i // 3) for i in range(60)]
    held = fifth(groups)
    assert held.sum() == 12 and len({g for g, h in zip(groups, held, strict=True) if h}) == 4
    np.testing.assert_array_equal(held, fifth(groups))
    assert (
        fifth(["a", "a"]).all() and thinned(range(100), 3) == [0, 49, 99] and thinned([], 3) == []
    )


def test_a_task_without_labels_is_refused_by_its_reason():
    examples, encoder = colours(2, 2), seeing(blind_then_seeing)
    examples.own = False
    asked = [name for _, _, name, _ in plan([encoder], lambda modality: examples, ["all"])]
    assert asked == ["category", "subcategory", "segmentation", "retrieval"]
    for name, told in {
        "voice": "says of no recording who speaks",
        "categry": "no such task here; did you mean 'category'? valid: image: category, sub",
    }.items():
        with pytest.raises(UserError) as caught:
            plan([encoder], lambda modality: examples, ["category", name])
        assert told in str(caught.value)
    examples.modality = "text"
    with pytest.raises(UserError, match="--data: is text, but the encoders read image"):
        plan([encoder], lambda modality: examples, ["all"])
