"""Every config is whole, and stays what it was.

After a change that is meant: UPDATE_GOLDEN=1 pytest tests/configs, then read the difference.
"""

from __future__ import annotations

import os
import pathlib
import re

import jax
import pytest

from taichu_jax import config as configs
from taichu_jax.training.experiment import Experiment
from taichu_jax.training.optim import paths
from taichu_jax.training.sharding import MeshShape, partition

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").glob("*/[a-z]*.py"))


def golden(file: pathlib.Path) -> str:
    """The resolved config, and what happens to every parameter, as text."""
    config = configs.load(str(file))
    experiment = Experiment.from_config(config)
    mesh = MeshShape(data=2, fsdp=2, tensor=2).make()
    lines = []
    for path, leaf in paths(experiment.abstract_state().params).items():
        rule = experiment.optimizer.rule(path)
        where = ",".join(str(axis) for axis in partition(path, leaf.shape, mesh)) or "whole"
        lines.append(f"{path} {list(leaf.shape)} rate {rule.rate} decay {rule.decay} {where}")
    return configs.to_json(config) + "\n".join(lines) + "\n"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_config_is_whole_and_as_recorded(file):
    stored = ROOT / "tests" / "golden" / f"{file.parent.name}_{file.stem}.txt"
    text = golden(file)
    if os.environ.get("UPDATE_GOLDEN"):
        stored.write_text(text, "utf8")
    assert stored.is_file(), "no golden text yet; UPDATE_GOLDEN=1 pytest tests/configs writes it"
    assert text == stored.read_text("utf8")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_config_round_trips_through_its_saved_form(file):
    config = configs.load(str(file))
    again = configs.from_json(configs.to_json(config))
    assert configs.differences(config, again) == []
    assert jax.tree.structure(Experiment.from_config(again).abstract_state()) == jax.tree.structure(
        Experiment.from_config(config).abstract_state()
    )


BIG = ("_1b", "_7b", "_10b", "_vit_h", "_large")
ONE_MODALITY = [f for f in FILES if f.parent.name != "multimodal" and not f.stem.endswith(BIG)]


@pytest.mark.parametrize("file", ONE_MODALITY, ids=lambda f: f.stem)
def test_the_number_of_steps_is_an_argument(file):
    """Schedules go with it: none of a run of 60 steps lasts longer."""
    config = configs.load(f"{file}:60")
    assert config.steps == 60
    lengths = re.findall(r'"(?:steps|warmup|start)": (\d+)', configs.to_json(config))
    assert lengths and max(map(int, lengths)) <= 60


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_header_gives_the_command_and_the_name(file):
    header = file.read_text("utf8").split('"""')[1]
    command = f"python launch/train.py --config {file.relative_to(ROOT)}"
    assert command in header
    assert configs.load(str(file)).name == file.stem
    assert not re.search(r"TODO|FIXME", header)


def test_every_golden_text_has_its_config():
    names = {f"{file.parent.name}_{file.stem}" for file in FILES}
    assert names == {path.stem for path in (ROOT / "tests" / "golden").glob("*.txt")}
