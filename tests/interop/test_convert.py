"""Folders to runs and back: every bit, every name, and what a run is good for."""

from __future__ import annotations

import json
import shutil
import sys
import types

import jax
import ml_dtypes
import numpy as np
import pytest

from taichu_jax.config import spec
from taichu_jax.errors import UserError
from taichu_jax.evals.evaluate import evaluate
from taichu_jax.interop import hub
from taichu_jax.interop.convert import read_model, to_folder, to_run
from taichu_jax.interop.tensors import INDEX, read_json, read_tensors, write_json
from taichu_jax.models.style import Style
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.transformer import Stack
from taichu_jax.training.checkpoint import Checkpoints
from taichu_jax.training.directory import RunDirectory, load_config
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.restore import restore_networks
from taichu_jax.training.run import Run
from tests.interop.folders import tensors_of, write_folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """An old file: LayerNorm.gamma, the tied matrix twice, two types, two shards, a vocabulary."""
    values, tensors = tensors_of("bert")
    old = {}
    for name, tensor in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        name = name.replace("LayerNorm.bias", "LayerNorm.beta")
        old[name] = tensor.astype(ml_dtypes.bfloat16) if "layer.1" in name else tensor
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"]
    folder = tmp_path_factory.mktemp("bert")
    write_folder(folder / "source", values, old, shard_bytes=4000)
    (folder / "source" / "vocab.txt").write_text("[PAD]\n")
    (folder / "source" / "pytorch_model.bin").write_text("not read")
    notes = to_run(folder / "source", folder / "run")
    return folder, old, notes


def test_there_and_back(bert, tmp_path):
    folder, old, notes = bert
    assert notes == []
    assert to_folder(folder / "run", tmp_path / "back", shard_bytes=4000) == []
    again = read_tensors(tmp_path / "back")
    assert set(again) == set(old)
    for name, tensor in old.items():
        assert again[name].dtype == tensor.dtype, name
        assert again[name].tobytes() == tensor.tobytes(), name
    source, back = ({p.name for p in d.iterdir()} for d in (folder / "source", tmp_path / "back"))
    assert back == source - {"pytorch_model.bin"}
    for name in ("config.json", "vocab.txt", INDEX):
        same = (tmp_path / "back" / name).read_text() == (folder / "source" / name).read_text()
        assert same, name


def test_the_run_can_be_opened_evaluated_and_started_from(bert):
    folder, old, _ = bert
    run = Run.open(folder / "run")
    assert run.step == 0
    words = run.params["text"]["token_embedding"]
    np.testing.assert_array_equal(words, old["bert.embeddings.word_embeddings.weight"])
    tokens = np.full((1, 3), 7, np.int32)
    assert run.nets()("text", tokens, tokens > 0).tokens.shape == (1, 3, 8)
    with pytest.raises(UserError, match=r"config\.evaluations is empty"):
        evaluate(run)

    config = load_config(folder / "run")
    config.networks = {"text": config.networks.text}
    config.networks.text.dropout = 0.0
    experiment = Experiment.from_config(config, jax.devices()[:1])
    restore = {"text": str(folder / "run")}
    state, notes = restore_networks(restore, experiment.objectives, experiment.init())
    assert len(notes) == 1
    for ours, theirs in zip(
        jax.tree.leaves(state.params["text"]), jax.tree.leaves(run.params["text"]), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_type_of_ones_own(bert, tmp_path):
    folder, *_ = bert
    notes = to_folder(folder / "run", tmp_path / "half", dtype="bfloat16")
    assert notes and all(note.startswith("rounded to bfloat16: ") for note in notes)
    assert {x.dtype.name for x in read_tensors(tmp_path / "half").values()} == {"bfloat16"}
    assert read_json(tmp_path / "half" / "config.json")["dtype"] == "bfloat16"
    with pytest.raises(UserError, match=r"--dtype=float8; .*valid: bfloat16, float16, float32"):
        to_folder(folder / "run", tmp_path / "other", dtype="float8")


def test_what_is_not_empty_is_left_alone(bert):
    folder, *_ = bert
    with pytest.raises(UserError, match="is not empty"):
        to_folder(folder / "run", folder / "source")
    with pytest.raises(UserError, match="is not empty"):
        to_run(folder / "source", folder / "run")


def test_a_file_of_the_encoder_alone(tmp_path):
    """Names without their prefix; the head that training needs is new, and said so."""
    values, tensors = tensors_of("bert", ("masked_lm", "next_sentence", "pooler"))
    alone = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    write_folder(tmp_path / "source", values, alone)
    model = read_model(tmp_path / "source")
    assert model.anew == [
        "text/head/bias",
        "text/head/kernel",
        "text/head_bias",
        "text/head_norm/bias",
        "text/head_norm/scale",
    ]
    assert set(model.networks) == {"text"}


def test_a_run_of_another_step_or_place(tmp_path):
    """A run that was trained here, with scanned blocks, and then written for transformers."""
    stack = spec(Stack, scan=True)
    text = spec(
        TextEncoder,
        vocab_size=20,
        width=8,
        heads=2,
        length=10,
        causal=True,
        stack=stack,
        style=spec(Style, epsilon=1e-5, activation="gelu_tanh"),
        head_kind="tied",
        dropout=0.3,
    )
    run_of(text, tmp_path / "run", steps=(1, 2))
    assert to_folder(tmp_path / "run", tmp_path / "back", step=1) == []
    values = read_json(tmp_path / "back" / "config.json")
    assert values["model_type"] == "gpt2" and values["n_inner"] == 32
    model = read_model(tmp_path / "back")
    _, trained = 1, Run.open(tmp_path / "run", 1).params["text"]
    blocks = trained["transformer"]["blocks"]["attention"]["query"]["kernel"]
    for i in range(2):
        again = model.params["text"]["transformer"][f"block_{i}"]["attention"]["query"]["kernel"]
        np.testing.assert_array_equal(again, blocks[i])
    with pytest.raises(UserError, match="checkpoint 3: there is no such checkpoint"):
        to_folder(tmp_path / "run", tmp_path / "third", step=3)

    with pytest.raises(UserError, match=r"known architecture: bert: text\.") as caught:
        to_folder(tmp_path / "run", tmp_path / "third", architecture="bert")
    assert "gpt2" not in str(caught.value)


def test_a_run_that_no_architecture_describes(tmp_path):
    text = spec(TextEncoder, vocab_size=20, width=8, heads=2, length=10)
    run_of(text, tmp_path / "run", steps=(1,))
    with pytest.raises(UserError) as caught:
        to_folder(tmp_path / "run", tmp_path / "back")
    told = str(caught.value)
    assert "bert: text." in told and "gpt2: text." in told and "vit: needs a network" in told
    with pytest.raises(
        UserError, match=r"--architecture: model_type='t5'; .*valid: bart, beit, bert"
    ):
        to_folder(tmp_path / "run", tmp_path / "back", architecture="t5")


def run_of(text, path, steps):
    """A run of a causal model whose parameters are `step` at every step."""
    values, tensors = tensors_of("gpt2")
    write_folder(path.parent / "gpt2", values, tensors)
    model = read_model(path.parent / "gpt2")
    streams, objectives, _ = model.architecture.training(model.settings, model.networks)
    from taichu_jax.training.experiment import defaults

    config = defaults()
    config.streams, config.objectives, config.networks = streams, objectives, {"text": text}
    experiment = Experiment.from_config(config, jax.devices()[:1])
    state = experiment.init()
    with RunDirectory(path, config):
        checkpoints = Checkpoints(path)
        for step in steps:
            checkpoints.save(state, step, {})
        checkpoints.wait()


@pytest.mark.parametrize(
    ("model_type", "change", "told"),
    [
        ("bert", {"hidden_act": "swish"}, "config.json: hidden_act='swish'; .*valid: gelu"),
        ("bert", {"is_decoder": True}, "is_decoder=True is not supported; valid: False"),
        ("bert", {"model_type": "brt"}, "model_type='brt'; did you mean 'bert'"),
        ("bert", {"model_type": ["bert"]}, "model_type="),
        ("bert", {"num_attention_heads": 3}, "config.json: its values do not fit: width 8 is not"),
        ("bert", {"hidden_size": "8"}, "config.json: "),
        ("bert", {"num_hidden_layers": 3}, "missing: bert.encoder.layer.2"),
        ("bert", {"num_hidden_layers": 1}, "unexpected: bert.encoder.layer.1"),
        ("bert", {"vocab_size": 21}, r"word_embeddings.weight is \[20, 8\], not \[21, 8\]"),
        ("bert", {"hidden_size": None}, "config.json: "),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "is not supported; valid: False"),
        ("vit", {"image_size": [8, 8]}, r"image_size=\[8, 8\] is not supported; valid: one"),
        ("vit", {"num_channels": 1}, "num_channels=1 is not supported"),
        ("vit", {"patch_size": 2}, r"weight is \[8, 3, 4, 4\], not \[8, 3, 2, 2\]"),
    ],
)
def test_settings_that_do_not_fit(model_type, change, told, tmp_path):
    values, tensors = tensors_of(model_type)
    write_folder(tmp_path, values | change, tensors)
    with pytest.raises(UserError, match=told):
        read_model(tmp_path)


def test_a_setting_that_is_missing(tmp_path):
    values, tensors = tensors_of("bert")
    del values["vocab_size"]
    write_folder(tmp_path, values, tensors)
    with pytest.raises(UserError, match=r"config.json: lacks vocab_size"):
        read_model(tmp_path)


# The hub


def test_a_model_of_the_hub(bert, tmp_path, monkeypatch):
    """A stand-in for the hub's client gives the folder; only data are asked for."""
    folder, *_ = bert
    asked = {}

    def snapshot_download(name, *, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        if name != "owner/bert-tiny":
            raise OSError("404: no such model\nmore lines")
        return str(shutil.copytree(folder / "source", tmp_path / "cache"))

    stand_in = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    found = hub.local_folder("owner/bert-tiny", "v1")
    assert found == tmp_path / "cache" and asked["revision"] == "v1"
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["patterns"])
    assert set(read_model(found).networks) == {"text", "pooler", "next_sentence_head"}
    assert hub.local_folder(str(folder / "source")) == folder / "source"
    with pytest.raises(UserError, match=r"hf:other: .* gives nothing: 404: no such model$"):
        hub.local_folder("other")
    with pytest.raises(UserError, match="hf:/no/such: no such folder, and no id"):
        hub.local_folder("/no/such")


def test_without_the_hubs_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        hub.local_folder("owner/name")


def test_kept_files_are_json(bert):
    folder, *_ = bert
    kept = {p.name for p in (folder / "run" / "hf").iterdir()}
    assert kept == {"config.json", "tensors.json", "vocab.txt"}
    write_json(folder / "again.json", json.loads((folder / "run/hf/tensors.json").read_text()))
