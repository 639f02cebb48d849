"""Own files: folders, tables and a TFDS data set written here; what is damaged is named, never fatal."""

import io
import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from taichu_jax.data.items import Damaged
from taichu_jax.errors import UserError
from taichu_jax.probing.own import open_data
from taichu_jax.probing.tasks import available


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), colour).save(path)


def test_a_folder_of_classes(tmp_path):
    for i in range(10):
        paint(tmp_path / f"red/{i}.png", (250, 0, 0))
        paint(tmp_path / f"blue/deep/{i}.jpg", (0, 0, 250))
    (tmp_path / "red/notes.doc").write_text("x")
    (tmp_path / "red/0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = open_data(str(tmp_path))
    assert found.modality == "image" and found.own and len(found.rows) == 20
    tests = [row for row in found.rows if row.split == "test"]
    assert sorted(row.labels["label"] for row in tests) == ["blue"] * 2 + ["red"] * 2
    assert open_data(str(tmp_path)).rows == found.rows
    assert found.notes == ["1 files of another kind left out: red/notes.doc, ..."]
    names = [row.key for row in found.rows]
    blue = names.index("blue/deep/3.jpg")
    assert found.canvas(blue, 4)[0, 0, 2] > 240
    with pytest.raises(Damaged):
        found.canvas(names.index("red/0.png"), 4)
    assert set(available(found)) == {"label", "segmentation", "retrieval"}


def test_train_and_test_folders(tmp_path):
    for split, names in (("train", "ab"), ("test", "a")):
        for name in names:
            path = tmp_path / split / name / "x.txt"
            path.parent.mkdir(parents=True)
            path.write_text(f"text {name}", "utf8")
    found = open_data(str(tmp_path))
    assert [(row.key, row.split, row.labels["label"]) for row in found.rows] == [
        ("train/a/x.txt", "train", "a"),
        ("train/b/x.txt", "train", "b"),
        ("test/a/x.txt", "test", "a"),
    ]
    assert found.text(2) == "text a" and found.modality == "text"
    (tmp_path / "test/a/x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(Damaged, match="not UTF-8"):
        found.text(2)


def test_a_table_of_recordings(tmp_path):
    wave = np.sin(np.arange(8000) / 9)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    (tmp_path / "all.csv").write_text(
        "path,voice,emotion,split,text\na.wav,ann,glad,train,good day\na.wav,bob,,test,\n"
        "../b.wav,ann,glad,train,\nc.xyz,ann,glad,train,\n,,,,\n"
    )
    found = open_data(str(tmp_path / "all.csv"))
    assert [(dict(row.labels), row.split) for row in found.rows] == [
        ({"voice": "ann", "emotion": "glad", "text": "good day"}, "train"),
        ({"voice": "bob"}, "test"),
    ]
    assert found.wave(0).shape == (16000,) and found.text(0) == "good day" and found.text(1) == ""
    assert found.notes[0].startswith(
        "3 damaged lines left out: all.csv:4 (path '../b.wav' leads out"
    )
    assert set(available(found)) == {"voice", "emotion", "ctc", "keyword"}


def test_a_table_of_words_with_tags(tmp_path):
    lines = [
        {"words": ["a", "dog"], "tags": ["D", "N"], "split": "train"},
        {"words": ["a", "dog"], "tags": ["D"], "split": "train"},
        {"words": ["dogs"], "tags": ["N"], "split": "test"},
        {"text": "no label"},
    ]
    path = tmp_path / "tagged.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), "{broken", "[" * 10_000]), "utf8")
    found = open_data(str(path))
    assert found.words(0) == (["a", "dog"], ["D", "N"]) and len(found.rows) == 2
    assert found.notes[0].startswith("4 damaged lines left out: tagged.jsonl:2 (words and tags")
    assert set(available(found)) == {"tagging"}


@pytest.mark.parametrize(
    ("files", "where", "message"),
    [
        ({}, "nowhere", "valid: a folder of classes, a .csv, a .jsonl, tfds:NAME"),
        ({"d/a/x.exe": "x"}, "d", "has no example; valid files: png"),
        ({"d/a/x.txt": "x", "d/a/x.png": "x"}, "d", "1 of image, 1 of text"),
        ({"t.jsonl": '{"text": "x", "label": "y", "split": "dev"}'}, "t.jsonl", "split='dev'"),
        (
            {"t.jsonl": '{"text": "x", "label": "y", "split": "train"}'},
            "t.jsonl",
            "needed: train and",
        ),
    ],
)
def test_what_is_no_data_is_refused(tmp_path, files, where, message):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        open_data(str(tmp_path / where))
    assert message in str(caught.value)


def test_a_tfds_data_set(tmp_path):
    import tensorflow_datasets as tfds

    class Squares(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(4, 4, 3)),
                "label": tfds.features.ClassLabel(names=["dark", "light"]),
                "number": np.int64,
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(6), "validation": self._generate_examples(2)}

        def _generate_examples(self, count):
            for i in range(count):
                image = io.BytesIO()  # as a file: an array would be encoded by TensorFlow
                Image.new("RGB", (4, 4), (250 * (i % 2),) * 3).save(image, "PNG")
                image.seek(0)
                yield i, {"image": image, "label": i % 2, "number": i}

    builder = Squares(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    found = open_data(f"tfds:{builder.data_dir}")
    assert found.modality == "image" and found.notes == ["its split 'validation' is the test"]
    assert sorted(available(found)) == ["label", "number", "retrieval", "segmentation"]
    train = [i for i, row in enumerate(found.rows) if row.split == "train"]
    assert len(train) == 6 and len(found.rows) == 8
    for i in train:
        light = found.rows[i].labels["label"] == "light"
        assert (found.canvas(i, 4)[0, 0, 0] == 250) == light
        assert int(found.rows[i].labels["number"]) % 2 == light
    with pytest.raises(UserError, match=r"tfds:no_such_set: cannot be opened"):
        open_data("tfds:no_such_set")
    with pytest.raises(UserError, match=r"is not in .*; make it with: tfds build mnist"):
        open_data("tfds:mnist", str(tmp_path))
