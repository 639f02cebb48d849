"""Manifests and descriptions from elsewhere: what they say is checked before it is used."""

from __future__ import annotations

import json
import os

import pytest

from taichu_jax.data import builder, manifest, stamps
from taichu_jax.data.items import text_fault
from taichu_jax.data.records import load_index, open_records
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.errors import UserError
from tests.data.files import png


@pytest.fixture
def parse(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(png([[[9]]]))
    (tmp_path / "set" / "in.png").write_bytes(png([[[9]]]))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set" / "loop.png").symlink_to("loop.png")

    def run(line, **options):
        path = tmp_path / "set" / "m.jsonl"
        path.write_bytes(line if isinstance(line, bytes) else json.dumps(line).encode())
        return manifest.parse(path, **options)

    return run


@pytest.mark.parametrize(
    "name", ["../secret.png", "{}/secret.png", "link.png", "/etc/passwd", "a/../.."]
)
def test_a_manifest_reads_nothing_outside_its_folder(parse, tmp_path, name):
    entry = {"id": "a", "image": name.format(tmp_path)}
    with pytest.raises(UserError, match=r"m\.jsonl:1: .* lies outside .*--root"):
        parse(entry)
    if "secret" in name or "link" in name:
        (item,), _ = parse(entry, root=tmp_path)
        assert item.image.resolve() == tmp_path / "secret.png"


@pytest.mark.parametrize("name", ["nowhere.png", "loop.png", "x" * 300, "in.png/in.png", "."])
def test_files_that_are_not_there_are_left_out(parse, name):
    (item,), skipped = parse({"id": "a", "image": name, "texts": {"en": "A"}})
    assert item.image is None and [entry.reason for entry in skipped] == ["no such file"]


def test_a_pipe_is_no_file(parse, tmp_path):
    os.mkfifo(tmp_path / "set" / "pipe.png")
    (item,), skipped = parse({"id": "a", "image": "pipe.png"})
    assert item.image is None and len(skipped) == 1


@pytest.mark.parametrize(
    "line, message",
    [
        (b'{"id": "a\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"null", "not an object with an id"),
        ({"id": "../../etc/passwd"}, "id='../../etc/passwd' must not"),
        ({"id": "/etc/passwd"}, "must not start with /"),
        ({"id": "a\nb"}, "cannot be printed"),
        ({"id": "a\ud800"}, "cannot be printed"),
        ({"id": "x" * 1001}, "1 to 1,000 characters"),
        ({"id": "a", "category": "a\0"}, "category='a.x00' has characters"),
        ({"id": "a", "image": "a\0.png"}, "cannot be printed"),
        ({"id": "a", "image": ""}, "1 to 1,000"),
    ],
)
def test_a_line_that_breaks_the_format_is_named(parse, line, message):
    with pytest.raises(UserError, match=rf"m\.jsonl:1: .*{message}"):
        parse(line)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "empty text"), (" \t\n", "empty text"), ("a\0b", "text with"), ("a\x1b[31m", "text with"),
        ("\ud83d", "text with"), ("\ufffd", "text with"), ("a\tb\r\n", None), ("x" * 100_000, None),
        ("e\u0301 \U0001f600 \u2028 \u200b", None),
    ],
)  # fmt: skip
def test_texts_that_cannot_be_used_are_left_out(parse, text, fault):
    assert (text_fault(text) or "").startswith(fault or "")
    (item,), skipped = parse({"id": "a", "texts": {"en": text, "fr": "Oui."}})
    assert (("en" in item.texts), len(skipped)) == ((False, 1) if fault else (True, 0))
    assert not fault or (skipped[0].path == "a: texts.en" and fault in skipped[0].reason)


def test_odd_and_long_texts_reach_the_batch(parse, tmp_path):
    texts = ["x" * 100_000, "One\u2028line \U0001f600", "plain"]
    entries = [{"id": str(i), "texts": {"en": t}, "split": "train"} for i, t in enumerate(texts)]
    raw = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries).encode()
    parse(raw)
    builder.prepare_manifest(tmp_path / "data", "odd", tmp_path / "set" / "m.jsonl")
    assert [r.texts["en"] for r in open_records(tmp_path / "data", "odd", "train")] == texts
    stream = Sentences(dataset="odd", batch_size=3, text_length=16)
    (batch,) = stream.epoch(tmp_path / "data", ByteTokenizer())
    assert batch["valid"].all() and batch["text_mask"][0].all()


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b", ""])
def test_the_name_of_a_data_set_is_no_path(tmp_path, name):
    with pytest.raises(UserError, match=r"dataset=.*letters, digits and _"):
        load_index(tmp_path, name, "train")
    with pytest.raises(UserError, match=r"dataset=.*letters, digits and _"):
        open_records(tmp_path, name, "train")


def test_names_of_stamps_that_cannot_be_shown_are_left_out(tmp_path):
    folder = tmp_path / "animals"
    folder.mkdir()
    for name in (b"a\nb.png", b"c\xff.png", b"d.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(png([[[9]]]))
    items, skipped = stamps.parse(tmp_path)
    assert [item.id for item in items] == ["animals/d"]
    assert [(s.path, s.reason) for s in skipped] == [
        ("animals/a\\nb", "name has characters that cannot be printed"),
        ("animals/c\\udcff", "name has characters that cannot be printed"),
    ]
