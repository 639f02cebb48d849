"""Batches are a pure function of (seed, step); their shapes, order, statistics and absences."""

import collections
import dataclasses
import itertools
import json
import logging

import numpy as np
import pytest

from taichu_jax.config import build, spec
from taichu_jax.data import builder
from taichu_jax.data.audio import AudioAugment
from taichu_jax.data.fetch import SAMPLE
from taichu_jax.data.languages import INDEX, LANGUAGES
from taichu_jax.data.loader import Loader
from taichu_jax.data.records import Decoded, load_index
from taichu_jax.data.sampler import Contrasts, Draws
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.streams import Pictures, Recordings, Triplets
from taichu_jax.data.tokenizer import CLS, SEP, BPETokenizer, ByteTokenizer
from taichu_jax.errors import UserError

BYTES = ByteTokenizer()
CHEAP = {"audio": "waveform", "seconds": 0.1, "image_size": 8, "augment": False}
STREAMS = {
    "triplets": Triplets(batch_size=8),
    "waves": Triplets(batch_size=8, audio="waveform", views=2, seconds=1.0, trim=True),
    "pairs": Triplets(batch_size=8, pairs=0.5, same_language=False),
    "words and pictures": Triplets(batch_size=8, modalities=("text", "image")),
    "pictures": Pictures(batch_size=8, views=2, image_size=32),
    "recordings": Recordings(batch_size=8),
    "sentences": Sentences(batch_size=8),
    "packed": Sentences(batch_size=8, pack=True),
    "consecutive": Sentences(batch_size=8, pack=True, consecutive=True),
}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture(params=STREAMS)
def stream(request):
    return STREAMS[request.param]


# ------------------------------------------------------------------------------- every stream


def test_shapes_are_as_announced(stream, sample_data_dir):
    batch = stream.batches(sample_data_dir, BYTES, seed=1)[3]
    announced = stream.fields()
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        k: (v.shape, v.dtype) for k, v in announced.items()
    }
    for evaluated in stream.epoch(sample_data_dir, BYTES):
        assert evaluated.pop("valid").shape == (8,)
        assert {k: (v.shape, v.dtype) for k, v in evaluated.items()} == {
            k: (v.shape, v.dtype) for k, v in announced.items()
        }
        break


def test_a_batch_depends_on_seed_and_step_alone(stream, sample_data_dir):
    first = stream.batches(sample_data_dir, BYTES, seed=1)
    second = stream.batches(sample_data_dir, BYTES, seed=1)
    later, _ = second[7], second[0]
    same(first[7], later)
    different = stream.batches(sample_data_dir, BYTES, seed=2)
    for other in (first[8], different[7]):
        assert any(not np.array_equal(other[key], later[key]) for key in later)


def test_a_row_is_the_same_whoever_makes_it(stream, sample_data_dir):
    whole = stream.batches(sample_data_dir, BYTES, seed=1)[5]
    for rows in (range(4), range(4, 8), (1, 2, 6), ()):
        part = stream.batches(sample_data_dir, BYTES, seed=1, rows=rows)[5]
        same(part, {key: value[list(rows)] for key, value in whole.items()})


def test_a_config_can_name_it(stream):
    assert build(spec(type(stream), **{
        field.name: getattr(stream, field.name) for field in dataclasses.fields(stream)
    })) == stream  # fmt: skip


def test_rows_are_rows_of_the_batch(sample_data_dir):
    for rows in ((0, 8), (1, 0), (2, 2), (-1,)):
        with pytest.raises(ValueError, match="must ascend, from 0 to 7"):
            Pictures(batch_size=8).batches(sample_data_dir, None, seed=0, rows=rows)


# ----------------------------------------------------------------------------------- Triplets


def test_fields_belong_together(sample_data_dir):
    stream = Triplets(batch_size=8, text_length=300, augment=False)
    index = load_index(sample_data_dir, "tuxpaint_stamps", "train")
    by_id = {entry.id: entry for entry in index.entries}
    examples = stream.examples(sample_data_dir)
    source = stream.source(sample_data_dir)
    batch = stream.batches(sample_data_dir, BYTES, seed=1)[0]
    for row in range(8):
        name, lang = examples[batch["example"][row]]
        entry = by_id[name]
        number = index.entries.index(entry)
        assert batch["lang"][row] == INDEX[lang]
        assert batch["concept"][row] == entry.concept
        assert index.categories[batch["category"][row]] == name.split("/")[0]
        assert BYTES.decode(batch["text"][row]) == source.texts(number)[lang]
        samples = min(len(source.wave(number, lang)), 40960)
        assert batch["mel_lengths"][row] == min(1 + samples // 160, 256)
        assert not batch["mel"][row, batch["mel_lengths"][row] :].any()


def test_one_language_a_batch_and_no_concept_twice(sample_data_dir):
    stream = Triplets(batch_size=16, **CHEAP)
    source = stream.source(sample_data_dir)
    languages, alone = collections.Counter(), 0
    batches = stream.batches(sample_data_dir, BYTES, seed=3)
    for step in range(12):
        batch = batches[step]
        assert len(set(batch["concept"])) == 16
        languages.update(set(batch["lang"]))
        alone += len(set(batch["lang"])) == 1
        for example, lang in zip(batch["example"], batch["lang"], strict=True):
            assert stream.select(source)[example].lang == LANGUAGES[lang]
    assert len(languages) > 3 and alone >= 6  # English and one more share a pool


def test_a_view_is_another_draw_of_the_same_example(sample_data_dir):
    batch = STREAMS["waves"].batches(sample_data_dir, BYTES, seed=1)[0]
    assert not np.array_equal(batch["image"], batch["image2"])
    assert not np.array_equal(batch["audio"], batch["audio2"])
    plain = dataclasses.replace(STREAMS["waves"], augment=False)
    batch = plain.batches(sample_data_dir, BYTES, seed=1)[0]
    np.testing.assert_array_equal(batch["image"], batch["image2"])
    np.testing.assert_array_equal(batch["audio"], batch["audio2"])


def test_pairs_have_no_recording(sample_data_dir):
    stream = Triplets(batch_size=8, pairs=0.5, **CHEAP)
    batches = stream.batches(sample_data_dir, BYTES, seed=1)
    voiced = [batches[step]["has_audio"] for step in range(40)]
    assert all(row.all() or not row.any() for row in voiced)
    assert 8 <= sum(row.all() for row in voiced) <= 32
    never = Triplets(batch_size=8, **CHEAP).batches(sample_data_dir, BYTES, seed=1)
    assert all(never[step]["has_audio"].all() for step in range(10))


def test_clean_frames_are_what_is_to_be_heard(sample_data_dir):
    def first(**fields):
        stream = Recordings(**{"batch_size": 8, "seconds": 6.0, "clean_mel": True} | fields)
        return stream.batches(sample_data_dir, None, seed=1)[0]

    # Noise, loudness, masks and normalisation do not reach them.
    loud = AudioAugment(speed=0, noise_probability=1.0)
    batch, plain = first(audio_augment=loud), first(augment=False, normalise=False, clean_mel=False)
    np.testing.assert_array_equal(batch["example"], plain["example"])
    np.testing.assert_array_equal(batch["clean_mel"], plain["mel"])
    assert np.abs(batch["clean_mel"] - batch["mel"]).max() > 1
    for field, values in first(audio_augment=loud, clean_mel=False).items():
        np.testing.assert_array_equal(values, batch[field])
    # Speed and crop do.
    faster = AudioAugment(
        gain_db=0, speed_probability=1.0, noise_probability=0, band_masks=0, frame_masks=0
    )
    batch = first(audio_augment=faster, normalise=False, seconds=0.5)
    assert batch["audio_start"].any() and batch["mel"].any()
    np.testing.assert_array_equal(batch["clean_mel"], batch["mel"])


def test_an_epoch_has_every_example_once(sample_data_dir):
    stream = Triplets(split="test", batch_size=20)
    batches = list(stream.epoch(sample_data_dir, BYTES))
    valid = np.concatenate([batch["valid"] for batch in batches])
    examples = np.concatenate([batch["example"] for batch in batches])
    assert [len(batch["valid"]) for batch in batches] == [20, 20, 20]
    np.testing.assert_array_equal(examples[valid], np.arange(48))
    assert not batches[-1]["has_audio"][8:].any() and not batches[-1]["mel"][8:].any()
    languages = np.concatenate([batch["lang"] for batch in batches])[valid]
    assert (np.diff(languages) >= 0).all()


def test_languages_can_be_chosen(sample_data_dir):
    stream = Triplets(batch_size=8, languages=("fr", "en"), **CHEAP)
    batches = stream.batches(sample_data_dir, BYTES, seed=1)
    langs = {LANGUAGES[i] for step in range(20) for i in batches[step]["lang"]}
    assert langs == {"fr", "en"}


@pytest.fixture(scope="module")
def mixed_data_dir(tmp_path_factory):
    """Records in which each combination of modalities is there."""
    folder = tmp_path_factory.mktemp("mixed")
    lines = []
    for png in sorted(SAMPLE.rglob("*.png"))[:14]:
        has = [bool(len(lines) + 1 & bit) for bit in (1, 2, 4)]
        entry = {"id": f"{len(lines):02}", "split": "train"}
        if has[0]:
            entry["texts"] = {"fr": f"mot {len(lines)}"}
        if has[1]:
            entry["image"] = str(png)
        if has[2]:
            entry["recordings"] = {"fr": f"{png.with_suffix('')}_desc_fr.ogg"}
        lines.append(json.dumps(entry))
    (folder / "m.jsonl").write_text("\n".join(lines))
    builder.prepare_manifest(folder, "mixed", folder / "m.jsonl", root=SAMPLE)
    return folder


def test_absent_modalities_are_zeros(mixed_data_dir):
    stream = Triplets(dataset="mixed", batch_size=4, pairs=0.5)
    batches = stream.batches(mixed_data_dir, BYTES, seed=0)
    seen = set()
    for step in range(20):
        batch = batches[step]
        for row in range(4):
            has = tuple(bool(batch[f"has_{name}"][row]) for name in ("text", "image", "audio"))
            seen.add(has)
            number = int(stream.examples(mixed_data_dir)[batch["example"][row]][0]) + 1
            assert has == tuple(bool(number & bit) for bit in (1, 2, 4))
            for name, present in zip(("text", "image", "mel"), has, strict=True):
                assert batch[name][row].any() == present
            assert (batch["mel_lengths"][row] > 0) == has[2]
            assert batch["text_mask"][row].any() == has[0]
    assert len(seen) == 7


def test_damaged_examples_are_replaced_counted_and_named_once(sample_data_dir, monkeypatch, caplog):
    from taichu_jax.data.items import Damaged

    bad = 5
    original = Decoded.canvas

    def canvas(self, row, side):
        if row == bad:
            raise Damaged("broken on purpose")
        return original(self, row, side)

    monkeypatch.setattr(Decoded, "canvas", canvas)
    stream = Pictures(batch_size=32, image_size=16)
    source = stream.source(sample_data_dir)
    before = source.damaged
    batches = stream.batches(sample_data_dir, BYTES, seed=1)
    with caplog.at_level(logging.WARNING):
        drawn = [batches[step] for step in range(6)]
    examples = stream.select(source)
    for batch in drawn:
        assert batch["has_image"].all()
        assert all(examples[i].row != bad for i in batch["example"])
    assert source.damaged > before
    assert [r.message for r in caplog.records] == [
        f"left out {source.entries[bad].id}: broken on purpose"
    ]
    same(drawn[2], stream.batches(sample_data_dir, BYTES, seed=1)[2])
    whole = [batch["valid"].sum() for batch in stream.epoch(sample_data_dir, BYTES)]
    assert sum(whole) == sum(example.row != bad for example in examples)
    monkeypatch.setattr(Decoded, "canvas", lambda *_: (_ for _ in ()).throw(Damaged("all")))
    with pytest.raises(UserError, match="prepare the data again"):
        batches[0]


# ---------------------------------------------------------------------------------- samplers


def languages_and_concepts():
    languages = np.repeat([0, 1, 2, 3], [400, 100, 10, 5])
    return languages, np.arange(len(languages)) % 300


def test_languages_are_drawn_by_a_power_of_their_count():
    languages, concepts = languages_and_concepts()
    everything = np.arange(len(languages))
    # Language 3 has too few for a batch; language 2 tops its pool up.
    sampler = Contrasts(everything, languages, concepts, batch_size=8, seed=0, temperature=0.5)
    expected = np.array([20, 10, np.sqrt(10) + np.sqrt(5)])
    np.testing.assert_allclose(sampler.probabilities, expected / expected.sum())
    drawn = collections.Counter()
    for step in range(3000):
        batch = sampler.batch(step)
        drawn[min(2, languages[batch[0]])] += 1
        if step < 200:
            pool = set(languages[batch])
            assert pool in ({0}, {1}) or pool <= {2, 3}
    share = np.array([drawn[k] for k in range(3)]) / 3000
    np.testing.assert_allclose(share, sampler.probabilities, atol=0.03)


def test_examples_of_a_language_are_drawn_evenly():
    concepts = np.arange(50)
    sampler = Contrasts(concepts, np.zeros(50, int), concepts, batch_size=10, seed=0)
    counts = np.bincount(np.concatenate([sampler.batch(step) for step in range(2000)]))
    assert abs(counts - 400).max() < 5 * np.sqrt(400)


def test_in_the_mixed_pool_a_language_has_its_share():
    languages, _ = languages_and_concepts()
    unique = np.arange(len(languages))
    sampler = Contrasts(unique, languages, unique, batch_size=1, seed=0, same_language=False)
    drawn = np.bincount(languages[[sampler.batch(step)[0] for step in range(4000)]]) / 4000
    mass = np.sqrt([400, 100, 10, 5])
    np.testing.assert_allclose(drawn, mass / mass.sum(), atol=0.03)


def test_concepts_repeat_only_when_they_run_out():
    concepts = np.array([0, 0, 0, 1, 1, 2])
    sampler = Contrasts(np.arange(6), np.zeros(6, int), concepts, batch_size=9, seed=0)
    for step in range(20):
        batch = sampler.batch(step)
        assert sorted(concepts[batch[:3]]) == [0, 1, 2]
        assert sorted(batch[:6]) == list(range(6))
        np.testing.assert_array_equal(batch[6:], batch[:3])


def test_draws_follow_the_power_of_the_count():
    languages = np.array([2] * 900 + [0] * 100)
    sampler = Draws(languages, batch_size=5000, seed=0, temperature=0.5)
    drawn = languages[sampler.batch(0)]
    assert (drawn == 2).mean() == pytest.approx(0.75, abs=0.03)
    assert len(np.unique(sampler.batch(1))) > 900


# ---------------------------------------------------------------------------------- sentences


def test_packed_rows_hold_whole_sentences(sample_data_dir):
    for name in ("packed", "consecutive"):
        stream = dataclasses.replace(STREAMS[name], text_length=200)
        batch = stream.batches(sample_data_dir, BYTES, seed=0)[0]
        for row in range(8):
            ids, mask = batch["text"][row], batch["text_mask"][row]
            segments, positions = batch["text_segments"][row], batch["text_positions"][row]
            assert segments.max() >= 2 and ((segments > 0) == mask).all() and not ids[~mask].any()
            for segment in range(1, segments.max() + 1):
                inside = segments == segment
                assert ids[inside][0] == CLS
                assert ids[inside][-1] == SEP or segment == 1
                np.testing.assert_array_equal(positions[inside], np.arange(inside.sum()))
        assert batch["text_mask"].mean() > 0.6


def test_a_packed_epoch_has_every_sentence_once(tmp_path):
    lines = [f"line {i} {'x' * (i % 23 + 1)}" for i in range(100)]
    (tmp_path / "t.txt").write_text("\n\n".join(lines), "utf8")
    stream = Sentences(path=str(tmp_path / "t.txt"), text_length=64, batch_size=4, pack=True)
    found = []
    for batch in stream.epoch(tmp_path, BYTES):
        for row in range(4):
            segments = batch["text_segments"][row]
            assert batch["valid"][row] == bool(segments.any())
            for segment in range(1, segments.max() + 1):
                found.append(BYTES.decode(batch["text"][row][segments == segment]))
    assert found == lines


def test_consecutive_rows_keep_the_order_of_the_file(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(f"{i}" for i in range(50)), "utf8")
    stream = Sentences(
        path=str(tmp_path / "t.txt"), text_length=40, batch_size=4, pack=True, consecutive=True
    )
    batch = stream.batches(tmp_path, BYTES, seed=0)[0]
    for row in range(4):
        segments = batch["text_segments"][row]
        numbers = [
            int(BYTES.decode(batch["text"][row][segments == s]))
            for s in range(1, segments.max() + 1)
        ]
        assert len(numbers) > 8
        assert all((b - a) % 50 == 1 for a, b in itertools.pairwise(numbers))


def test_lines_of_a_file_are_examples(tmp_path):
    (tmp_path / "t.txt").write_text("one\n\n  two  \nthree\n", "utf8")
    stream = Sentences(path=str(tmp_path / "t.txt"), path_language="en", batch_size=4)
    (batch,) = stream.epoch(tmp_path, BYTES)
    assert [BYTES.decode(ids) for ids in batch["text"][:3]] == ["one", "two", "three"]
    assert list(batch["valid"]) == [True, True, True, False]
    assert (batch["lang"][:3] == INDEX["en"]).all()


# ------------------------------------------------------------------------------------- loader


def test_loader_resumes_exactly_and_streams_do_not_disturb_each_other(sample_data_dir):
    streams = {"a": STREAMS["triplets"], "b": STREAMS["sentences"]}
    tokenizer = BPETokenizer(vocab_size=400, dropout=0.1)
    with Loader(streams, sample_data_dir, tokenizer, seed=4) as loader:
        batches = [next(loader) for _ in range(5)]
        assert loader.state() == {"next_step": 5}
    with Loader(streams, sample_data_dir, tokenizer, seed=4, start_step=3, threads=2) as loader:
        for expected in batches[3:]:
            got = next(loader)
            same(got["a"], expected["a"])
            same(got["b"], expected["b"])
    with Loader({"b": streams["b"]}, sample_data_dir, tokenizer, seed=4, start_step=4) as loader:
        same(next(loader)["b"], batches[4]["b"])


def test_loader_with_a_worker_process_gives_the_same(sample_data_dir):
    streams = {"a": Triplets(batch_size=4)}
    with Loader(streams, sample_data_dir, BYTES, seed=4) as loader:
        expected = [next(loader) for _ in range(4)]
    with Loader(streams, sample_data_dir, BYTES, seed=4, start_step=1, workers=1) as loader:
        for batch in expected[1:]:
            same(next(loader)["a"], batch["a"])


# ------------------------------------------------------------------------------------ mistakes


def test_mistakes_are_named(tmp_path, sample_data_dir):
    with pytest.raises(UserError, match=r"no prepared data set 'tuxpaint_stamps' .*prepare\.py"):
        Pictures().batches(tmp_path, None, seed=0)
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        Pictures(split="tset").batches(sample_data_dir, None, seed=0)
    with pytest.raises(UserError, match="did you mean 'mel'"):
        Recordings(audio="mell")
    with pytest.raises(UserError, match="clean_mel=True: needs audio='mel', not 'waveform'"):
        Recordings(audio="waveform", clean_mel=True)
    with pytest.raises(UserError, match="did you mean 'image'"):
        Triplets(modalities=("images",))
    with pytest.raises(UserError, match="unknown language 'french'"):
        Triplets(languages=("french",))
    with pytest.raises(UserError, match="no example"):
        Triplets(languages=("zu",)).batches(sample_data_dir, None, seed=0)
    with pytest.raises(UserError, match="no such text file"):
        Sentences(path=str(tmp_path / "x")).batches(tmp_path, None, seed=0)
    with pytest.raises(UserError, match="consecutive"):
        Sentences(consecutive=True)
    with pytest.raises(UserError, match="pairs=2"):
        Triplets(pairs=2)
    with pytest.raises(UserError, match="batch_size=0"):
        Pictures(batch_size=0)
