"""What is made, judged and shown: a tiny run with exact tokenisers, and a judge with random weights."""

import dataclasses
import functools
import pathlib
import types

import jax
import numpy as np
import pytest

from taichu_jax.data import audio
from taichu_jax.errors import UserError
from taichu_jax.evals import evaluate as runner
from taichu_jax.evals import generation
from taichu_jax.evals import judge as judging
from taichu_jax.evals.generation import WAYS, Generation
from taichu_jax.evals.makers import INPUTS, PictureMaker, VoiceMaker, objective_of
from taichu_jax.evals.tables import tables
from taichu_jax.inference.decoding import Sampling
from taichu_jax.inference.vocoder import griffin_lim
from tests.evals import making, test_report

TEST = generation.Generation(
    stream=making.Things(),
    judge="a judge",
    languages=making.LANGUAGES,
    splits=("test",),
    limit=6,
    samples=2,
    varied=3,
    top_k=0,
    examples=2,
)


@functools.cache
def judge() -> judging.Judge:
    return judging.Judge(making.run(pathlib.Path("a judge"), judges=True, seed=2))


@functools.cache
def makers(sampling=Sampling(1.0)):  # noqa: B008 (an immutable tuple)
    run = making.run(pathlib.Path("a run"))
    return {
        "image": PictureMaker(run, objective_of(run, "image"), sampling),
        "audio": VoiceMaker(run, objective_of(run, "audio"), sampling),
    }


@pytest.fixture
def compiled(monkeypatch):
    """Every run of the evaluation shares its programs."""
    monkeypatch.setattr(judging.Judge, "open", lambda folder, judged: judge())
    monkeypatch.setattr(Generation, "_makers", lambda self, run: makers())


@functools.cache
def rows():
    """The fields of the first six examples."""
    stream = making.Things(split="test", languages=making.LANGUAGES, batch_size=6)
    batch = next(stream.epoch(None, making.ByteTokenizer()))
    return {name: batch[name] for name in INPUTS}


def test_evaluation_scores_every_way_beside_its_references(compiled, tmp_path):
    run = making.run(tmp_path, evaluations={"made": TEST})
    result = runner.evaluate(run)["evaluations"]["made"]["result"]
    table = result["splits"]["test"]
    assert (table["items"], table["things"], table["candidates"]) == (6, 5, [5, 5])
    assert result["judge"] == {"name": "judge", "step": 7} and result["vocoder"] == "Griffin-Lim"
    inputs = {"image": ["audio", "text", "text+audio"], "audio": ["image", "text", "text+image"]}
    for kind, sources in inputs.items():
        assert list(table["scores"][kind]) == [m for m in ("text", "image", "audio") if m != kind]
        for scores in table["scores"][kind].values():
            shuffled = [f"{source} shuffled" for source in sources]
            assert list(scores) == ["chance", "real", "tokeniser", *sources, *shuffled]
            # One right answer among five.
            assert scores["chance"]["R@1"] == pytest.approx(20)
            assert scores["chance"]["R@5"] == pytest.approx(100) == scores["chance"]["R@10"]
            assert scores["chance"]["median"] == 3
            low, high = scores["real"]["interval"]["R@1"]
            assert low < scores["real"]["R@1"] < high or low == 0 == scores["real"]["R@1"]
    # Exact codes: the picture that comes back is the picture.
    for scores in table["scores"]["image"].values():
        assert scores["tokeniser"] == scores["real"]
    assert list(table["diversity"]) == list(WAYS) and set(table["lengths"]) == set(WAYS[3:])
    for row in table["diversity"].values():
        assert row["judge"] > 0 and row["squared_error"] > 0
    assert table["diversity"]["audio->image"]["distinct_items"] == 100
    _check_shown(run, result, tmp_path)
    again = TEST.run(run, tmp_path / "again")
    assert runner.plain(again) == result
    assert _media(tmp_path / "again") == _media(tmp_path / runner.FOLDER / "made")
    other = dataclasses.replace(TEST, seed=1, ways=("text->image",), samples=1)
    other = other.run(run, tmp_path / "other")
    assert np.isnan(other["splits"]["test"]["diversity"]["text->image"]["judge"])
    first = lambda shown: [e["made"]["text->image"][0] for e in shown["examples"]]  # noqa: E731
    assert all(a != b for a, b in zip(first(other), first(result), strict=True))


def _media(folder):
    return sorted(path.name for path in (folder / "media").iterdir())


def _check_shown(run, result, folder):
    assert len(result["examples"]) == 2
    for example in result["examples"]:
        assert example["text"].startswith(example["language"])
        assert list(example["made"]) == list(WAYS)
        assert all(len(samples) == 2 for samples in example["made"].values())
        # Exact codes of a picture are the same file; sounds have gone through a vocoder.
        assert example["tokeniser"]["image"] == example["real"]["image"]
        assert example["tokeniser"]["audio"] != example["real"]["audio"]
        files = [example["real"]["image"], *example["made"]["audio->image"]]
        files += [*example["real"]["audio"].values(), *example["made"]["text->audio"][1].values()]
        assert all((folder / runner.FOLDER / "made" / file).is_file() for file in files)
    assert len(tables("made", {"kind": "Generation", "result": result})) == 4
    path = test_report.write(folder, {"made": ("Generation", result)})
    page = test_report.parsed(path)
    text = " ".join(page.text)
    for words in (
        "Pictures and voices made",
        "Held-out pictures",
        "pictures made from, judged by words",
        "the real recording, as codes",
        ", shuffled",
        "judge at step 7",
        "temperature 1.",
        "6 items, 5 things, each among 5 candidates",
        "distance to the judge",
        "fr <0>",
    ):
        assert words in text, words
    # Of each card: the real picture, its codes' and two of each of three ways; a picture of each sound.
    assert page.tags.count("figure") == 2 * (2 + 3 * 2 + 2 + 3)
    assert page.tags.count("audio") == len({s["audio"] for s in _sounds(result)})
    assert page.tags.count("button") == 1 + 2 * (2 + 3)  # light or dark, and the clips
    assert "from " in text and all(s.startswith(("data:", "#")) for s in page.sources)


def _sounds(result):
    for example in result["examples"]:
        yield from (example["real"]["audio"], example["tokeniser"]["audio"])
        yield from (example["made"][way][0] for way in WAYS[3:])


def test_made_things_depend_on_what_is_given_and_on_their_number_alone():
    fields, key = rows(), jax.random.key(0)
    half = {name: value[3:] for name, value in fields.items()}
    changed = {k: np.roll(v, 1, 0) if k in ("mel", "mel_lengths") else v for k, v in fields.items()}
    for maker in makers().values():
        whole = maker.make(fields, ("text",), key, np.arange(6))
        some = maker.make(half, ("text",), key, np.arange(3, 6))
        for a, b in zip(whole.codes[3:], some.codes, strict=True):
            np.testing.assert_array_equal(a, b)
        deaf = maker.make(changed, ("text",), key, np.arange(6))
        assert all(np.array_equal(a, b) for a, b in zip(whole.codes, deaf.codes, strict=True))
        heard = maker.make(changed, ("text", "audio"), key, np.arange(6))
        assert not all(np.array_equal(a, b) for a, b in zip(whole.codes, heard.codes, strict=True))
        other = maker.make(fields, ("text",), key, np.arange(6, 12))
        assert not all(np.array_equal(a, b) for a, b in zip(whole.codes, other.codes, strict=True))


def test_a_voice_is_as_long_as_its_codes_and_the_way_of_recordings():
    maker = makers()["audio"]
    made = maker.make(rows(), ("image",), jax.random.key(3), np.arange(6))
    lengths = [len(codes) for codes in made.codes]
    assert len(set(lengths)) > 1 and max(lengths) <= making.TOKENS
    for codes, wave in zip(made.codes, made.things, strict=True):
        mel = making.ExactSpeech().decode(codes[None])[0]
        assert len(wave) == (len(codes) * making.STRIDE - 1) * audio.HOP
        np.testing.assert_allclose(wave, griffin_lim(np.asarray(mel)), atol=1e-3)
    source = making.Source()
    waves = [source.wave(i, lang) / np.float32(32767) for i, lang in ((0, "fr"), (3, "ro"))]
    for wave, again in zip(waves, maker.again(waves), strict=True):
        same = griffin_lim(audio.log_mel(wave, making.BANDS))
        np.testing.assert_allclose(again, same, atol=1e-3)
    assert maker.sound([np.zeros((0, making.BANDS))])[0].size == 0


def test_judge_hears_and_sees_what_streams_give():
    items = judge().items("test", making.LANGUAGES)
    assert items.keys == [(row, lang) for lang in making.LANGUAGES for row in range(making.THINGS)]
    source = making.Source()
    waves = [source.wave(row, lang) / np.float32(32767) for row, lang in items.keys]
    np.testing.assert_allclose(judge().voices(waves), items.embeddings["audio"], atol=2e-4)
    quiet = judge().voices([np.zeros(2000, np.float32), waves[0][:100], waves[0]])
    assert not quiet[:2].any() and quiet[2].any()
    fields, _ = judging.collect(judge().run, making.Things(split="test"), None, ("image",))
    images = list(fields["image"])
    np.testing.assert_allclose(judge().pictures(images), items.embeddings["image"], atol=1e-5)
    plain = [np.full((n, n, 3), [0.2, 0.5, 0.9], np.float32) for n in (making.SIZE, 20)]
    small, large = (judge().pictures([image]) for image in plain)
    np.testing.assert_allclose(small, large, atol=1e-5)  # of another size, made smaller


def test_wrong_settings_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="ways: no such 'text->text'"):
        dataclasses.replace(TEST, ways=("text->text",))
    with pytest.raises(UserError, match="limit=0: must be 1 or more"):
        dataclasses.replace(TEST, limit=0)
    run = making.run(tmp_path)
    same = dataclasses.replace(TEST, judge=f"{tmp_path}/../{tmp_path.name}")
    with pytest.raises(UserError, match="is the judged run itself"):
        same.run(run, tmp_path)
    nobody = dataclasses.replace(TEST, judge=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"judge='.*none': .*holds no run.*judge_stamps.py trains"):
        nobody.run(run, tmp_path)
    with pytest.raises(UserError, match="cannot judge; it needs ContrastiveAlignment"):
        judging.Judge(run)
    with pytest.raises(UserError, match="makes no image, for which it needs"):
        TEST.run(judge().run, tmp_path)


def test_a_judge_of_other_data_is_refused(monkeypatch, tmp_path):
    elsewhere = types.SimpleNamespace(stream=making.Things(dataset="elsewhere"))
    monkeypatch.setattr(judging.Judge, "open", lambda folder, judged: elsewhere)
    with pytest.raises(UserError, match="was trained on 'elsewhere'"):
        TEST.run(making.run(tmp_path), tmp_path)
