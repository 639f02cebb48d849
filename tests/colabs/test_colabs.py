"""The notebooks are those of their scripts, and every cell of them runs, on tiny networks."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import pathlib
import re
import runpy
import sys
from types import SimpleNamespace
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.data.conftest import sample_data_dir  # noqa: F401 (a fixture)

FOLDER = ROOT / "colabs"
GENERATE = runpy.run_path(str(FOLDER / "generate.py"))
NAMES = GENERATE["NAMES"]
STEPS = {"steps": "2", "log_every": "1", "data.workers": "0"}


@dataclasses.dataclass(frozen=True)
class Trial:
    """How a notebook is run, and what it must show.

    Attributes:
      parameters: in place of those of its cell.
      plots, players: how many its cells show.
      says: parts of what it prints.
    """

    parameters: dict[str, Any]
    plots: int
    players: int
    says: tuple[str, ...]


def sizes(*networks: str, width="16", depth="1", **more: str) -> dict[str, str]:
    """Changes of a config: the smallest networks."""
    small = {"width": width, "depth": depth, **more}
    return {f"networks.{name}.{key}": value for name in networks for key, value in small.items()}


def transformers(*networks: str) -> dict[str, str]:
    return sizes(*networks, heads="2")


FEW_BLOCKS = {"networks.image_tokeniser.blocks": "1"}
TRIALS = {
    "speech_probing": Trial(
        {
            "CHANGES": STEPS | transformers("speech") | {"streams.voices.batch_size": "8"},
            "TASKS": ["language"],
            "LIMIT": 30,
        },
        plots=4,
        players=4,
        says=("done: 2 steps", "raw input: log-mel", "untrained weights"),
    ),
    "image_probing": Trial(
        {
            "CHANGES": STEPS
            | transformers("image", "image_decoder")
            | {"streams.pictures.batch_size": "8"},
            "LIMIT": 30,
            "SHOWN": 3,
        },
        plots=6,
        players=0,
        says=("done: 2 steps", "of their means", "segmentation of patches", "mAP", "pixels"),
    ),
    "tri_modal": Trial(
        {
            "PICTURE_CODES": STEPS | FEW_BLOCKS | {"streams.pictures.batch_size": "8"},
            "VOICE_CODES": STEPS | sizes("speech") | {"streams.voices.batch_size": "8"},
            "MODEL": STEPS
            | FEW_BLOCKS
            | sizes("audio_tokeniser")
            | transformers("text", "image", "audio", "fusion", "text_decoder")
            | transformers("image_code_decoder", "audio_code_decoder")
            | {"streams.stamps.batch_size": "8"},
            "LEFT_OUT": ["token", "sample", "mae"],
            "SAMPLES": 2,
        },
        plots=9,
        players=6,
        says=("this run can make: text, image, audio", "audio->image", "the right picture"),
    ),
    "add_objective": Trial(
        {
            "CHANGES": STEPS | transformers("image") | {"streams.views.batch_size": "8"},
            "MIXED_STEPS": "1",
        },
        plots=3,
        players=0,
        says=("the loss is the formula", "the test fails: Not equal to tolerance"),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_generated_from_its_script(name):
    stored = (FOLDER / f"{name}.ipynb").read_text("utf8")
    assert stored == GENERATE["notebook"](name), "python colabs/generate.py"


def test_every_notebook_has_its_script():
    others = {"generate", "plots", "set_up"}
    assert {p.stem for p in FOLDER.glob("*.py")} - others == set(NAMES) == set(TRIALS)
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_badge_and_clone_are_of_one_repository(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    (cloned,) = re.findall(r'^REPOSITORY = "https://github.com/(.*)"$', cells[2].source, re.M)
    assert f"/github/{cloned}/blob/main/colabs/{name}.ipynb)" in cells[0].source
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("script", ["import set_up\nimport numpy", "import numpy", ""])
def test_a_script_must_set_up_in_a_cell_of_its_own(script, tmp_path, monkeypatch):
    (tmp_path / "some.py").write_text(f"# %% [markdown]\n# Words\n\n# %%\n{script}\n")
    monkeypatch.setitem(GENERATE["notebook"].__globals__, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="one cell must be the import of set_up"):
        GENERATE["notebook"]("some")


def set_up(monkeypatch, **names) -> tuple[dict[str, Any], list[list[str]]]:
    """(what the set-up cell defines, the commands that it would have run)."""
    commands = []

    def run(command, **options):
        commands.append(command)
        if "clone" in command:
            pathlib.Path(command[-1]).mkdir()
        return SimpleNamespace(stdout="gpu\n")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("sys.path", sys.path.copy())
    text = (FOLDER / "set_up.py").read_text("utf8")
    exec(compile(text, "set_up", "exec"), names)
    return names, commands


def test_in_a_checkout_nothing_is_installed(monkeypatch, tmp_path):
    for given in ({}, {"__file__": str(FOLDER / "some.py")}):
        monkeypatch.chdir(tmp_path if given else FOLDER)
        found, commands = set_up(monkeypatch, **given)
        assert (found["ROOT"], commands) == (ROOT, [])
        assert pathlib.Path.cwd() == ROOT


def test_elsewhere_it_is_cloned_and_installed_for_the_devices(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    found, (cloned, asked, pip) = set_up(monkeypatch)
    root = tmp_path / "taichu_jax"
    assert cloned[:2] == ["git", "clone"]
    assert cloned[-2:] == [found["REPOSITORY"], str(root)]
    assert "jax.default_backend()" in asked[-1]
    assert pip[-2:] == ["--editable", f"{root}[cuda]"]
    assert found["ROOT"] == root == pathlib.Path.cwd() == pathlib.Path(sys.path[0])
    assert capsys.readouterr().out == ""

    monkeypatch.chdir(tmp_path)  # after a restart: nothing is cloned again
    monkeypatch.setattr(np, "__version__", "0.1")
    _, commands = set_up(monkeypatch)
    assert [command[-1] for command in commands] == [asked[-1], f"{root}[cuda]"]
    assert "Restart" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs(name, sample_data_dir, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("PYTHONPATH", raising=False)  # the set-up finds the checkout
    trial = TRIALS[name]
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (place,) = (
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    )
    data = {"data.dir": str(sample_data_dir), "data.source": ""}
    given = {"WORK": str(tmp_path / "work")} | {
        key: value | data if isinstance(value, dict) else value
        for key, value in trial.parameters.items()
    }
    for key in given:
        assert re.search(rf"^{key} = ", notebook.cells[place].source, re.M), f"has no {key}"
    lines = "\n".join(f"{key} = {value!r}" for key, value in given.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    where = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=400, resources=where).execute()

    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    shown = [out.data for out in outputs if "data" in out]
    plots = [base64.b64decode(x["image/png"]) for x in shown if "image/png" in x]
    if folder := os.environ.get("COLAB_PLOTS"):  # to look at
        for number, plot in enumerate(plots):
            pathlib.Path(folder, f"{name}_{number}.png").write_bytes(plot)
    assert len(plots) == trial.plots
    assert sum("<audio" in x.get("text/html", "") for x in shown) == trial.players
    said = "".join([*(out.get("text", "") for out in outputs), *(x["text/plain"] for x in shown)])
    for part in trial.says:
        assert part in said
    for plot in plots:
        assert np.asarray(Image.open(io.BytesIO(plot)).convert("L")).std() > 5, "an empty plot"
    if name == "add_objective":
        alone, mixed = re.findall(r"first step: Barlow Twins (\S+)", said)
        assert alone == mixed
