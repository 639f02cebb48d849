"""s3prl's checkpoints: to parameters and back bit for bit, against PyTorch's layers, and never run."""

from __future__ import annotations

import argparse
import pathlib

import jax
import numpy as np
import pytest

from taichu_jax.config import build
from taichu_jax.errors import UserError
from taichu_jax.interop import s3prl
from taichu_jax.interop.convert import _described, _settings_of, read_model, to_folder, to_run
from taichu_jax.interop.rules import to_theirs
from taichu_jax.interop.tensors import read_json, read_tensors, write_tensors
from taichu_jax.training.directory import load_config
from taichu_jax.training.optim import Optimizer
from taichu_jax.training.run import Run
from tests.interop.folders import tensors_of, write_folder

torch = pytest.importorskip("torch", reason="see requirements-test.txt")

BANDS, WIDTH, LENGTHS = 5, 8, np.array([9, 6])
MEL = np.random.default_rng(0).normal(size=(2, 9, BANDS)).astype(np.float32)


class Apc(torch.nn.Module):
    """The layers of s3prl's APC under its names."""

    def __init__(self):
        super().__init__()
        sizes = (BANDS, WIDTH)
        self.rnn_layers = torch.nn.ModuleList(
            torch.nn.GRU(size, WIDTH, batch_first=True) for size in sizes
        )
        self.postnet = torch.nn.Linear(WIDTH, BANDS)


@pytest.fixture(scope="module")
def apc(tmp_path_factory):
    """(PyTorch's layers, their checkpoint as s3prl's trainer saves it, its config)."""
    torch.manual_seed(0)
    model = Apc()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
    paras = {"hidden_size": WIDTH, "num_layers": 2, "dropout": 0.1, "residual": True}
    config = {"data": {"audio": {"feat_type": "fbank"}}, "model": {"paras": paras}}
    states = {
        "Optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "Step": 7,
        "Args": argparse.Namespace(expdir="result", seed=1),
        "Config": {"runner": {"total_steps": 7}},
        "config": config,
        "model": model.state_dict(),
        "Upstream_Config": config,
    }
    file = tmp_path_factory.mktemp("apc") / "states-7.ckpt"
    torch.save(states, file)
    return model, file, config


def test_apc_computes_the_same(apc, tmp_path):
    model, file, _ = apc
    s3prl.to_folder(file, tmp_path)
    read = read_model(tmp_path)
    assert read.anew == [] and set(read.networks) == {"speech", "apc_head"}
    speech, head = (build(read.networks[name]) for name in ("speech", "apc_head"))

    @jax.jit
    def run(params):
        encoded = speech.apply({"params": params["speech"]}, MEL, LENGTHS)
        return encoded.layers, head.apply({"params": params["apc_head"]}, encoded.tokens)

    layers, predicted = run(read.params)
    for b, n in enumerate(LENGTHS):
        x = torch.tensor(MEL[b : b + 1, :n])
        for i, layer in enumerate(model.rnn_layers):
            y = layer(x)[0]
            x = y if i == 0 else x + y
            np.testing.assert_allclose(layers[i + 1][b, :n], x[0].detach(), atol=2e-6)
        np.testing.assert_allclose(predicted[b, :n], model.postnet(x)[0].detach(), atol=4e-6)


def test_there_and_back(apc, tmp_path):
    model, file, config = apc
    s3prl.to_folder(file, tmp_path / "folder")
    read = read_model(tmp_path / "folder")
    tensors, left = to_theirs(read.table, read.params, where="test")
    assert left == []
    write_tensors(tmp_path / "folder", tensors)
    s3prl.to_checkpoint(tmp_path / "folder", tmp_path / "again.ckpt")
    again = torch.load(tmp_path / "again.ckpt", weights_only=True)
    assert again["config"] == config
    given = model.state_dict()
    assert set(again["model"]) == set(given)
    assert all(torch.equal(again["model"][name], tensor) for name, tensor in given.items())
    with pytest.raises(UserError, match=r"again\.ckpt: exists"):
        s3prl.to_checkpoint(tmp_path / "folder", tmp_path / "again.ckpt")


@pytest.mark.parametrize("change", [{}, {"pre_layer_norm": True, "share_layer": True}])
def test_a_transformer_there_and_back(change, tmp_path):
    """Also one that repeats tensors: a norm under two names, a block once for every layer."""
    values, tensors = tensors_of("s3prl_transformer")
    if change:
        layer, inner = "Transformer.encoder.layer", "attention.output.LayerNorm.weight"
        tensors = {k: v for k, v in tensors.items() if not k.startswith(f"{layer}.1.")}
        for name in list(tensors):
            if name.startswith(f"{layer}.0."):
                tensors[name.replace(".0.", ".1.", 1)] = tensors[name]
        tensors[f"{layer}.1.attention.LayerNorm.weight"] = tensors[f"{layer}.0.{inner}"]
        for i in range(3):
            for name in ("weight", "bias"):
                tensors[f"Transformer.encoder.LayerNorm.{i}.{name}"] = np.full(8, i, np.float32)
    write_folder(tmp_path / "given", values | change, tensors)
    s3prl.to_checkpoint(tmp_path / "given", tmp_path / "states.ckpt")
    states = torch.load(tmp_path / "states.ckpt", weights_only=True)
    assert {"Transformer", "SpecHead", "Config"} == set(states)
    assert states["Config"]["transformer"]["pre_layer_norm"] == bool(change)
    s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "again")
    again = read_tensors(tmp_path / "again")
    assert set(again) == set(tensors)
    assert all(np.array_equal(again[name], tensor) for name, tensor in tensors.items())
    assert read_json(tmp_path / "again" / "config.json")["input_dim"] == 10
    read = read_model(tmp_path / "again")
    params = read.params["speech"]["transformer"]
    assert ("block_1" in params) == (not change)
    if change:
        np.testing.assert_array_equal(params["norm"]["scale"], 2)
        assert sum(read.left_out.values()) == 4
        tensors[f"{layer}.1.{inner}"] = tensors[f"{layer}.1.{inner}"] + 1
        write_folder(tmp_path / "given", values | change, tensors)
        with pytest.raises(UserError, match=r"layer\.1.* is not the same as .*layer\.0"):
            read_model(tmp_path / "given")


@pytest.fixture
def npc():
    """What s3prl's trainer saves of an NPC: also masks, what they hide, and counts of batches."""
    paras, tensors = tensors_of("s3prl_npc")
    del paras["model_type"], paras["input_size"]
    draw = np.random.default_rng(4)
    for i, hidden in enumerate((5, 7)):  # of 9 offsets
        weight, mask = f"masked_convs.{i}.conv.weight", np.ones((8, 8, 9), np.float32)
        mask[:, :, (9 - hidden) // 2 : (9 + hidden) // 2] = 0
        assert np.all(tensors[weight][mask == 0] == 0) and np.all(tensors[weight][mask > 0] != 0)
        tensors[weight] = np.where(mask, tensors[weight], draw.normal(size=mask.shape)).astype("f4")
        tensors[f"masked_convs.{i}.conv_mask"] = mask
        for name in ("bn1", "bn2"):
            tensors[f"blocks.{i}.{name}.num_batches_tracked"] = np.array(10 + i)
    model = {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}
    return {"model": model, "config": {"data": {"audio": {}}, "model": {"paras": paras}}, "Step": 3}


def test_npc_there_and_back(npc, tmp_path):
    """Through a run: all that it computes with, bit for bit; its statistics are frozen."""
    torch.save(npc, tmp_path / "states.ckpt")
    s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")
    assert to_run(tmp_path / "folder", tmp_path / "run") == []
    assert to_folder(tmp_path / "run", tmp_path / "back") == []
    s3prl.to_checkpoint(tmp_path / "back", tmp_path / "again.ckpt")
    again = torch.load(tmp_path / "again.ckpt", weights_only=True)
    assert again["config"] == npc["config"]
    given = dict(npc["model"])
    for i in range(2):
        weight, mask = f"masked_convs.{i}.conv.weight", given[f"masked_convs.{i}.conv_mask"]
        given[weight] = torch.where(mask > 0, given[weight], 0.0)
    assert set(again["model"]) == set(given)
    for name, tensor in given.items():
        assert again["model"][name].dtype == tensor.dtype, name
        assert torch.equal(again["model"][name], tensor), name

    config, params = load_config(tmp_path / "run"), Run.open(tmp_path / "run").params
    assert config.objectives.npc.gumbel == 0.5
    _, frozen = Optimizer(build(config.optimizer)).split(params)
    assert set(frozen) == {
        f"speech/block_{i}/{layer}_norm/{name}"
        for i in (1, 2)
        for layer in ("convolution", "linear")
        for name in ("mean", "variance")
    }
    running = npc["model"]["blocks.1.bn2.running_var"]
    np.testing.assert_array_equal(frozen["speech/block_2/linear_norm/variance"], running)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch_norm": False, "residual": False, "activate": "tanh", "disable_cross_layer": True},
    ],
)
def test_networks_of_npc_that_were_never_in_a_file(change, tmp_path):
    values, tensors = tensors_of("s3prl_npc", change=change)
    write_folder(tmp_path, values, tensors)
    model = read_model(tmp_path)
    speech = build(model.networks["speech"])
    assert speech.norm == ("none" if change else "batch") and speech.cross_layer == (not change)
    assert any(name.startswith("masked_convs.0") for name in tensors) == (not change)
    settings, described, reason = _settings_of(model.architecture, model.networks, model.params)
    assert reason == "" and described == 3
    assert _described(model.networks, model.params, "", "run")[0].model_type == "s3prl_npc"
    assert {k: settings[k] for k in values if k != "vq"} == {
        k: values[k] for k in values if k != "vq"
    }
    model.networks["speech"].norm = "layer"
    reason = _settings_of(model.architecture, model.networks, model.params)[2]
    assert reason.startswith("speech.norm")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vq": None}, "vq=None is not supported"),
        (
            {"vq": {"codebook_size": [6, 5], "code_dim": [4, 4]}},
            r"\[6, 5\], .*valid: groups of one",
        ),
        ({"activate": "gelu"}, "activate='gelu' is not supported; valid: relu, tanh"),
        ({"dim_bottleneck": 4}, "dim_bottleneck=4 is not supported"),
        ({"n_blocks": 1}, "unexpected: blocks.1.bn1.bias"),
        ({"batch_norm": False}, "unexpected: blocks.0.bn1.bias"),
        ({"kernel_size": 11}, r"conv.weight is \[8, 8, 9\], not \[8, 8, 11\]"),
    ],
)
def test_settings_of_npc_that_do_not_fit(change, told, tmp_path):
    values, tensors = tensors_of("s3prl_npc")
    write_folder(tmp_path, values | change, tensors)
    with pytest.raises(UserError, match=told):
        read_model(tmp_path)


def test_damaged_npc(npc, tmp_path):
    """Every tensor that is not there is named, and masks must be those of the settings."""
    for name in (
        "blocks.0.bn1.running_var",
        "masked_convs.1.conv.bias",
        "vq_layers.1.vq_logits.weight",
    ):
        del npc["model"][name]
    torch.save(npc, tmp_path / "states.ckpt")
    s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")
    missing = (
        r"blocks\.0\.bn1\.running_var, masked_convs\.1\.conv\.bias, vq_layers\.1\.vq_logits\.w"
    )
    with pytest.raises(UserError, match=f"missing: {missing}"):
        read_model(tmp_path / "folder")
    npc["model"]["masked_convs.0.conv_mask"][0, 0, 4] = 1.0
    torch.save(npc, tmp_path / "states.ckpt")
    with pytest.raises(
        UserError, match=r"convs\.0\.conv_mask is not that of kernel_size=9 and mask_"
    ):
        s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")


def test_a_file_that_runs_code_is_not_run(tmp_path):
    """What pickle would call is never called."""

    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    torch.save({"model": {}, "config": {}, "Args": Trap()}, tmp_path / "states.ckpt")
    with pytest.raises(UserError, match=r"states\.ckpt: cannot be read safely: "):
        s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([1], "holds no dictionary"),
        ({"a": 1}, r"holds a; valid: model and config \(APC, VQ-APC, NPC\), or Transformer"),
        (
            {"model": {"blocks.0": torch.ones(1)}, "config": {}},
            "no masked convolutions; valid: APC",
        ),
        ({"model": {"masked_convs.0": torch.ones(1)}, "config": {}}, "lacks 'postnet.bias'"),
        ({"model": {"rnn_layers.0": torch.ones(1)}, "config": {}}, "lacks 'postnet.bias'"),
        ({"Transformer": {}}, "lacks 'Upstream_Config'"),
    ],
)
def test_other_files(states, told, tmp_path):
    torch.save(states, tmp_path / "states.ckpt")
    with pytest.raises(UserError, match=told):
        s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")


def test_damaged_files(apc, tmp_path):
    content = apc[1].read_bytes()
    for broken in (b"", content[:100], content[:-50]):
        (tmp_path / "states.ckpt").write_bytes(broken)
        with pytest.raises(UserError, match="cannot be read safely"):
            s3prl.to_folder(tmp_path / "states.ckpt", tmp_path / "folder")
    with pytest.raises(UserError, match="no such file"):
        s3prl.to_folder(tmp_path / "none.ckpt", tmp_path / "folder")
