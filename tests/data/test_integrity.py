"""Prepared data: what is damaged on the disk is found and named; a killed process leaves old or new."""

from __future__ import annotations

import collections
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from taichu_jax.data import builder
from taichu_jax.data.items import Damaged
from taichu_jax.data.records import Decoded, load_index, open_records, read_status
from taichu_jax.data.streams import Pictures
from taichu_jax.errors import UserError
from tests.data.files import png

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for i in range(6):
        rng = np.random.default_rng(i)
        (folder / f"{i}.png").write_bytes(png(rng.integers(0, 256, (12, 12, 1))))
    lines = [
        json.dumps(
            {"id": f"{i}", "image": f"{i}.png", "texts": {"en": f"A {i}."}, "split": "train"}
        )
        for i in range(6)
    ]
    (folder / "m.jsonl").write_text("\n".join(lines))
    builder.prepare_manifest(folder / "data", "mine", folder / "m.jsonl")
    return folder


@pytest.fixture
def data(source, tmp_path):
    """A data folder that may be damaged."""
    shutil.copytree(source / "data", tmp_path / "data")
    return tmp_path / "data"


def records_file(data):
    (path,) = (data / "mine").rglob("*array_record*")
    return path


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_named_before_training(data, tenth):
    path = records_file(data)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * tenth // 10])
    with pytest.raises(
        UserError, match=r"array_record.*: is damaged; prepare 'mine' again .*prepare\.py"
    ):
        Pictures(dataset="mine", batch_size=2).batches(data, None, seed=0)


@pytest.mark.parametrize("name", ["index.json", "1.0.0/features.json", "1.0.0/dataset_info.json"])
def test_a_changed_description_is_named_before_training(data, name):
    path = data / "mine" / name
    text = path.read_text()
    for changed in (text.replace("A", "B", 1) + " ", text[: len(text) // 2], "", "[" * 10**5):
        path.write_text(changed)
        (data / "mine" / "status.json").touch()
        with pytest.raises(UserError, match=r"is damaged; prepare 'mine' again"):
            Pictures(dataset="mine", batch_size=2).batches(data, None, seed=0)
    path.unlink()
    with pytest.raises(UserError, match=r"is damaged; prepare 'mine' again"):
        Decoded(str(data), "mine", "train")


def test_a_damaged_report_is_named(data):
    path = data / "mine" / "status.json"
    for text in (path.read_text()[:-30], "", "null", "{}", "\xff"):
        path.write_text(text, "latin1")
        with pytest.raises(UserError, match=r"status\.json: is damaged"):
            read_status(data, "mine")
        with pytest.raises(UserError, match=r"status\.json: is damaged"):
            load_index(data, "mine", "train")


def test_data_sets_without_a_seal_still_open_and_their_damage_is_named(data):
    path = data / "mine" / "status.json"
    status = json.loads(path.read_text())
    del status["files"]
    path.write_text(json.dumps(status))
    assert len(Decoded(str(data), "mine", "train").entries) == 6
    for row in ([], ["a"], ["a", 1, "", ["xx"], [], True], ["a", 1, "none", [], [], True], 3):
        index = data / "mine" / "index.json"
        content = json.loads(index.read_text())
        content["splits"]["train"][2] = row
        index.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"index\.json: is damaged"):
            load_index(data, "mine", "train")


def test_a_flipped_bit_of_a_record_is_found_when_it_is_read(data, caplog):
    good = Decoded(str(data), "mine", "train")
    expected = [good.canvas(row, 12) for row in range(6)]
    path = records_file(data)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    used = len(whole.rstrip(b"\0"))
    outcomes = collections.Counter()
    for place in rng.integers(0, used, 25):
        harmed = bytearray(whole)
        harmed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(harmed)
        found = Decoded(str(data), "mine", "train")
        for row in range(6):
            try:
                np.testing.assert_array_equal(found.canvas(row, 12), expected[row])
                outcomes["right"] += 1
            except Damaged as damage:
                assert "cannot be read" in str(damage)
                outcomes["damaged"] += 1
    assert outcomes["damaged"] >= 3 and outcomes["right"] >= 10


def test_a_record_that_is_not_the_indexed_one_is_found(data):
    index = data / "mine" / "index.json"
    content = json.loads(index.read_text())
    content["splits"]["train"][:2] = content["splits"]["train"][1::-1]
    status = json.loads((data / "mine" / "status.json").read_text())
    del status["files"]
    (data / "mine" / "status.json").write_text(json.dumps(status))
    index.write_text(json.dumps(content))
    source = Decoded(str(data), "mine", "train")
    with pytest.raises(Damaged, match="record 0 is not what the index says"):
        source.texts(0)
    assert source.texts(2)


def test_the_same_command_mends_it(source, data, capsys):
    path = records_file(data)
    before = read_status(data, "mine")
    assert builder.prepare_manifest(data, "mine", source / "m.jsonl") == before
    harmed = bytearray(path.read_bytes())
    harmed[len(harmed.rstrip(b"\0")) // 2] ^= 1
    path.write_bytes(harmed)
    after = builder.prepare_manifest(data, "mine", source / "m.jsonl")
    assert "is damaged; prepare 'mine' again" in capsys.readouterr().out
    assert after["fingerprint"] == before["fingerprint"]
    assert [r.texts["en"] for r in open_records(data, "mine", "train")] == [
        f"A {i}." for i in range(6)
    ]


def test_a_process_that_is_killed_leaves_the_old_or_the_new(tmp_path):
    command = [sys.executable, "-m", "tests.data.killed_preparing", str(tmp_path), "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0 and len(rows) == 10, done.stderr[-2000:]
    killed = [row for row in rows if row[0] != "not"]
    assert len(killed) >= 7
    assert {left for _, left, _ in rows} == {"old", "new", "none"}, (
        rows
    )  # before, after and between
    assert {after for *_, after in rows} == {"new"}, rows
