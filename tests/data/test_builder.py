"""Fetching, splits, preparing, damaged files, manifests and the launcher."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from taichu_jax.data import audio, builder, fetch, images
from taichu_jax.data.items import Item
from taichu_jax.data.records import load_index, open_records, status_path
from taichu_jax.data.splits import BIG_LANGUAGES, assign
from taichu_jax.errors import UserError

NAME = "tuxpaint_stamps"
LAUNCHER = Path(__file__).parents[2] / "launch" / "prepare.py"


def run(*arguments, **options):
    command = [sys.executable, LAUNCHER, *map(str, arguments)]
    root = {"cwd": LAUNCHER.parents[1], "capture_output": True, "text": True}
    return subprocess.run(command, **root, **options)


# ------------------------------------------------------------------------------------- fetch


def test_a_wrong_source_is_an_error_and_never_other_data(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        fetch.collection(tmp_path, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no stamps"):
        fetch.collection(tmp_path, tmp_path / "empty")


def test_a_source_may_be_the_stamps_or_a_root_above(tmp_path):
    inside = tmp_path / fetch.INSIDE
    (inside / "animals").mkdir(parents=True)
    (inside / "animals" / "a.txt").write_text("A")
    for source in (tmp_path, inside):
        found = fetch.collection(tmp_path, source)
        assert (found.path, found.kind) == (inside, "source") and str(inside) in found.message


def test_without_apt_the_sample_is_used_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = fetch.collection(tmp_path)
    assert (found.path, found.kind) == (fetch.SAMPLE, "sample")
    assert "only the small shipped sample, because this machine has no apt-get" in found.message


def test_when_apt_fails_the_reason_is_said(tmp_path, monkeypatch):
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "apt-get failed (E: no network)" in fetch.collection(tmp_path).message


# ------------------------------------------------------------------------------------ splits


def test_splits_are_disjoint_by_concept(sample_data_dir):
    concepts, ids = {}, {}
    for split in ("train", "validation", "test", "test_recordings"):
        entries = load_index(sample_data_dir, NAME, split).entries
        concepts[split] = {entry.concept for entry in entries}
        ids[split] = {entry.id for entry in entries}
    assert not concepts["train"] & concepts["test"]
    assert not concepts["train"] & concepts["validation"]
    assert not concepts["test"] & concepts["validation"]
    assert ids["test_recordings"] <= ids["train"]
    assert len(ids["train"] | ids["test"] | ids["validation"]) == 96
    assert (len(ids["test"]), len(ids["validation"])) == (8, 4)


def test_held_out_recordings_are_not_in_train(sample_data_dir):
    train = {e.id: e for e in load_index(sample_data_dir, NAME, "train").entries}
    held_out = load_index(sample_data_dir, NAME, "test_recordings").entries
    for entry in held_out:
        assert entry.recordings and not set(entry.recordings) & set(train[entry.id].recordings)
    total = sum(len(entry.recordings) for entry in train.values())
    share = sum(len(entry.recordings) for entry in held_out)
    assert 0.04 < share / (share + total) < 0.12


def items_of(count, start=0, **fields):
    voices = {lang: Path("a.ogg") for lang in BIG_LANGUAGES}
    return [
        Item(id=f"{i:04}", texts={"en": f"Thing {i // 2}."}, recordings=voices, **fields)
        for i in range(start, start + count)
    ]


def test_the_full_collection_holds_out_eighty_and_forty():
    voiceless = [Item(id=f"x{i}", texts={"en": f"Other {i}."}) for i in range(61)]
    items = items_of(900) + voiceless
    splits = assign(items)
    assert {split: len(group) for split, group in splits.items() if split != "test_recordings"} == {
        "train": 841, "validation": 40, "test": 80
    }  # fmt: skip
    held_out = splits["test"] + splits["validation"]
    assert all(item.recordings for item in held_out)
    assert len({item.concept for item in held_out}) == 60  # both of each pair
    assert splits == assign(items[::-1])


def test_given_splits_are_kept():
    items = items_of(4, split="train") + items_of(2, start=4, split="test") + items_of(1, start=6)
    splits = assign(items)
    assert [item.id for item in splits["test"]] == ["0004", "0005"]
    assert [item.id for item in splits["train"]] == ["0000", "0001", "0002", "0003", "0006"]
    with pytest.raises(UserError, match="same thing"):
        assign(items_of(1, split="train") + items_of(1, start=1, split="test"))


# ---------------------------------------------------------------------------------- preparing


def test_records_hold_what_was_there(sample_data_dir):
    record = open_records(sample_data_dir, NAME, "test")[0]
    stem = fetch.SAMPLE / record.id
    english = Path(f"{stem}.txt").read_text("utf8").splitlines()[0]
    assert record.texts["en"] == english
    assert record.category == record.id.split("/")[0] and record.effect == b""
    np.testing.assert_array_equal(
        images.decode(record.image), images.visible(images.decode(Path(f"{stem}.png")))
    )
    np.testing.assert_allclose(
        audio.decode(record.recordings["fr"]), audio.decode(Path(f"{stem}_desc_fr.ogg")), atol=1e-4
    )


def test_preparing_again_does_nothing(sample_data_dir):
    path = status_path(sample_data_dir, NAME)
    before = path.stat().st_mtime_ns
    status = builder.prepare_stamps(sample_data_dir, fetch.SAMPLE)
    assert path.stat().st_mtime_ns == before
    assert status["splits"]["test"]["recordings"] == 48


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A few stamps of the sample, three of their files damaged; and the status of preparing it."""
    root = tmp_path_factory.mktemp("damaged")
    shutil.copytree(fetch.SAMPLE / "animals", root / "stamps" / "animals")
    pictures = sorted((root / "stamps").rglob("*.png"))
    png, ogg, txt = (
        pictures[0],
        pictures[1].with_name(f"{pictures[1].stem}_desc_fr.ogg"),
        pictures[2].with_suffix(".txt"),
    )
    png.write_bytes(png.read_bytes()[:-300])
    ogg.write_bytes(ogg.read_bytes()[:-300])
    txt.write_bytes(b"")
    status = builder.prepare_stamps(root / "data", root / "stamps")
    return root, status, (png, ogg, txt)


def test_damaged_files_are_skipped_counted_and_named(damaged):
    root, status, (png, ogg, txt) = damaged
    skipped = {path: reason for path, reason in status["skipped"]}
    assert skipped[str(png)] == "picture is cut short"
    assert skipped[str(ogg)] == "sound is cut short"
    assert skipped[txt.relative_to(root / "stamps").as_posix()] == "empty description"
    assert sum(status["skipped_counts"].values()) == len(status["skipped"])
    assert json.loads(status_path(root / "data", NAME).read_text("utf8")) == status


def test_the_rest_of_a_damaged_stamp_stays(damaged):
    root, _, (png, ogg, txt) = damaged
    kept = {}
    for split in ("train", "test", "validation"):
        if (root / "data" / NAME / "index.json").is_file():
            try:
                records = open_records(root / "data", NAME, split)
            except UserError:
                continue
            kept |= {record.id.split("/")[-1]: record for record in records}
    assert kept[png.stem].image == b"" and kept[png.stem].texts
    voices = kept[ogg.stem.removesuffix("_desc_fr")]
    assert "fr" not in voices.recordings and voices.image
    assert kept[txt.stem].texts == {} and kept[txt.stem].image


def test_changed_files_are_prepared_again(damaged):
    root, status, (png, _, _) = damaged
    png.unlink()
    again = builder.prepare_stamps(root / "data", root / "stamps")
    assert again["fingerprint"] != status["fingerprint"]
    assert str(png) not in {path for path, _ in again["skipped"]}


# ----------------------------------------------------------------------------------- manifest


def manifest_of(folder, *entries):
    path = folder / "my.jsonl"
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), "utf8")
    return path


def test_own_data_with_missing_modalities(tmp_path):
    png = sorted(fetch.SAMPLE.rglob("*.png"))[0]
    path = manifest_of(
        tmp_path,
        {"id": "all", "image": str(png), "texts": {"en": "One"}, "category": "things",
         "recordings": {"fr": f"{png.with_suffix('')}_desc_fr.ogg"}, "split": "train"},
        {"id": "text", "texts": {"zh_CN": "二"}, "split": "train"},
        {"id": "picture", "image": str(png), "split": "test"},
        {"id": "lost", "image": "nowhere.png", "split": "train"},
    )  # fmt: skip
    status = builder.prepare_manifest(tmp_path / "data", "mine", path, root="/")
    assert {split: counts["records"] for split, counts in status["splits"].items()} == {
        "train": 2, "test": 1
    }  # fmt: skip
    assert status["skipped"] == [
        ["lost", "nothing left of this record"], ["nowhere.png", "no such file"]
    ]  # fmt: skip
    records = {r.id: r for r in open_records(tmp_path / "data", "mine", "train")}
    assert records["text"].texts == {"zh_CN": "二"} and records["text"].image == b""
    assert list(records["all"].recordings) == ["fr"]


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"texts": {}}, "with an id"),
        ({"id": "a", "txts": {}}, "did you mean 'texts'"),
        ({"id": "a", "texts": "A koala"}, "must be a dict"),
        ({"id": "a", "texts": {"english": "A koala"}}, "unknown language 'english'"),
        ({"id": "a", "split": "dev"}, "no such split 'dev'"),
        ({"id": "a", "recordings": {"en": 3}}, "must be a str"),
    ],
)
def test_a_wrong_manifest_is_named_with_its_line(tmp_path, entry, message):
    path = manifest_of(tmp_path, {"id": "fine"}, entry)
    with pytest.raises(UserError, match=rf"my\.jsonl:2: .*{message}"):
        builder.prepare_manifest(tmp_path, "mine", path)


def test_missing_and_empty_manifests(tmp_path):
    with pytest.raises(UserError, match="no such manifest"):
        builder.prepare_manifest(tmp_path, "mine", tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="is empty"):
        builder.prepare_manifest(tmp_path, "mine", manifest_of(tmp_path))
    with pytest.raises(UserError, match="twice"):
        builder.prepare_manifest(tmp_path, "mine", manifest_of(tmp_path, {"id": "a"}, {"id": "a"}))
    for name in ("My Data", NAME):
        with pytest.raises(UserError, match="name"):
            builder.prepare_manifest(tmp_path, name, manifest_of(tmp_path, {"id": "a"}))


# ----------------------------------------------------------------------------------- launcher


def test_launcher_says_first_which_data_and_prints_a_table(damaged):
    root, _, _ = damaged
    done = run("--data_dir", root / "data", "--source", root / "stamps")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"data: the stamps in {root / 'stamps'} (source)\n")
    assert "recordings" in done.stdout and "left out:" in done.stdout


def test_launcher_refuses_nonsense_in_one_line(tmp_path):
    for arguments in (["--source", tmp_path / "no"], ["--manifest", tmp_path / "no.jsonl"]):
        done = run("--data_dir", tmp_path, *arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
