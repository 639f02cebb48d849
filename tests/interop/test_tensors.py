"""Folders of safetensors: shards, types, and damage."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.interop.tensors import INDEX, ONE, read_json, read_tensors, write_tensors

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "b": np.array(1.5, np.float32),
    "c": np.arange(4).astype(ml_dtypes.bfloat16),
    "d": np.full((2, 2), 0.1, np.float16),
}


def assert_same(found):
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert found[name].tobytes() == tensor.tobytes()


def test_one_file(tmp_path):
    assert [p.name for p in write_tensors(tmp_path / "new", TENSORS)] == [ONE]
    assert_same(read_tensors(tmp_path / "new"))
    assert [p.name for p in (tmp_path / "new").iterdir()] == [ONE]


def test_shards(tmp_path):
    written = write_tensors(tmp_path, TENSORS, shard_bytes=28)
    assert [p.name for p in written] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    index = read_json(tmp_path / INDEX)
    assert index["metadata"]["total_size"] == 24 + 4 + 8 + 8
    assert index["weight_map"] == {k: written[k in "cd"].name for k in TENSORS}
    assert_same(read_tensors(tmp_path))


def test_a_shard_may_be_read_by_transformers_rules(tmp_path):
    """It refuses files that do not say that they are PyTorch's layout."""
    write_tensors(tmp_path, TENSORS)
    raw = (tmp_path / ONE).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}


def break_index(folder, change):
    write_tensors(folder, TENSORS, shard_bytes=28)
    index = read_json(folder / INDEX)
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.clear(), "has no weight_map"),
        (lambda m: m.update(a="../model.safetensors"), "is not a file of this folder"),
        (lambda m: m.update(a=7), "is not a file of this folder"),
        (lambda m: m.update(a="model-3.safetensors"), "holds no model-3.safetensors"),
        (lambda m: m.update(e=m["a"]), "lacks e, which"),
    ],
)
def test_damaged_index(change, told, tmp_path):
    break_index(tmp_path, change)
    with pytest.raises(UserError, match=told):
        read_tensors(tmp_path)


def test_damaged_file(tmp_path):
    write_tensors(tmp_path, TENSORS)
    content = (tmp_path / ONE).read_bytes()
    for broken in (content[:-3], content[:20], b"", b"\xff" * 64):
        (tmp_path / ONE).write_bytes(broken)
        with pytest.raises(UserError, match="cannot be read as safetensors"):
            read_tensors(tmp_path)


def test_a_pickle_is_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle or such, which is never"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"), [("[1]", "is not a JSON object"), ("{", "cannot be read"), (None, "holds no")]
)
def test_damaged_json(text, told, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=told):
        read_json(tmp_path / "config.json")
