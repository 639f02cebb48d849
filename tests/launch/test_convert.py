"""launch/convert.py converts both ways, and refuses nonsense with one line."""

from __future__ import annotations

import runpy

import pytest

from taichu_jax.errors import UserError
from taichu_jax.interop.tensors import read_tensors
from tests.conftest import ROOT
from tests.interop.folders import tensors_of, write_folder

RUN = runpy.run_path(str(ROOT / "launch/convert.py"))["run"]


def test_both_ways(tmp_path, capsys):
    values, tensors = tensors_of("vit_mae")
    write_folder(
        tmp_path / "source", values, tensors | {"probe.weight": tensors["decoder.mask_token"]}
    )
    there, back = f"hf:{tmp_path / 'source'}", f"hf:{tmp_path / 'back'}"
    with pytest.raises(UserError, match=r"unexpected: probe\.weight"):
        RUN(["--from", there, "--to", str(tmp_path / "run")])
    RUN(["--from", there, "--to", str(tmp_path / "run"), "--skip=^probe"])
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("initialised anew: image/mask_token") and len(told) == 2
    RUN(["--from", str(tmp_path / "run"), f"--to={back}", "--shard_gb=0.000001"])
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "no place in vit_mae, left out: image/mask_token"
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 3
    again = read_tensors(tmp_path / "back")
    assert set(again) == set(tensors)
    assert all(again[name].tobytes() == tensors[name].tobytes() for name in tensors)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--from and --to are needed"),
        (["--from", "s3prl:a", "--to", "hf:b"], "one of them must begin with hf: or s3prl:"),
        (["--from", "s3prl:a", "--to", "b", "--revision", "c"], "--revision: has no meaning with"),
        (["--from", "s3prl:a.ckpt", "--to", "b"], "s3prl:a.ckpt: no such file"),
        (["--from", "hf:a", "--to", "hf:b"], "one of them must begin with hf:"),
        (["--from", "a", "--to", "b"], "one of them must begin with hf:"),
        (["--form", "a"], "--form: no such flag; did you mean '--from'"),
        (["--from"], "--from: needs a value"),
        (["--from", "hf:a", "--to", "b", "--step", "3"], "--step: has no meaning with"),
        (["--from", "a", "--to", "hf:b", "--skip", "x"], "--skip: has no meaning with"),
        (["--from", "a", "--to", "hf:b", "--step", "x"], "--step=x: must be a number"),
        (["--from", "a", "--to", "hf:b", "--shard_gb", "x"], "--shard_gb=x: must be a number"),
        (["--from", "a", "--to", "hf:b", "--shard_gb", "0"], "--shard_gb=0: must be above 0"),
        (["--from", "hf:a", "--to", "b", "--skip", "("], "--skip=(: is not a pattern"),
    ],
)
def test_nonsense(arguments, told):
    with pytest.raises(UserError) as caught:
        RUN(arguments)
    assert told in str(caught.value)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        RUN(["--from", str(tmp_path / "none"), "--to", f"hf:{tmp_path / 'new'}"])
