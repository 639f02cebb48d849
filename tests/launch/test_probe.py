"""launch/probe.py from a folder of weights and a folder of pictures to a report; nonsense is refused."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
from PIL import Image

from taichu_jax.errors import UserError
from tests.conftest import ROOT
from tests.interop.folders import tensors_of, write_folder

RUN = runpy.run_path(str(ROOT / "launch/probe.py"))["run"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("probe")
    write_folder(root / "vit", *tensors_of("vit"))
    for i in range(24):
        path = root / "pictures" / ("warm" if i % 2 else "cold") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (250, 40, 9 * i) if i % 2 else (20, 9 * i, 250)
        Image.new("RGB", (8, 8), colour).save(path)
    (root / "pictures/warm/1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def test_a_folder_of_pictures(folders, capsys):
    out = folders / "out"
    given = f"--hf={folders / 'vit'}", f"--data={folders / 'pictures'}", f"--out={out}"
    RUN([*given, "--task=label,segmentation", "--scratch_steps=3"])
    results = json.loads((out / "results.json").read_text("utf8"))
    found = results["networks"]["image"]["tasks"]["label"]
    assert [row["system"] for row in found["rows"]] == [
        "commonest label",
        "raw input: pixels",
        "untrained weights",
        "trained from scratch",
        "image",
    ]
    assert found["rows"][1]["scores"]["linear"] == 100.0  # the colour is the class
    assert all(0 <= x <= 100 for row in found["rows"] for x in row["scores"].values())
    assert found["train"] + found["test"] == 23
    assert any(note.startswith("1 damaged left out: warm/1.png") for note in found["notes"])
    assert set(results["networks"]["image"]["tasks"]) == {"label"}
    assert "transparent parts" in results["left_out"]["image/segmentation"]
    page = (out / "report.html").read_text("utf8")
    assert page.count("<svg viewBox") == 1 and "warm/1.png" in page and "image/segmentation" in page
    told = capsys.readouterr().out
    assert "trained from scratch" in told and "report:" in told
    assert np.isclose(sum(found["rows"][-1]["shares"].values()), 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either --run DIR or --hf DIR is needed"),
        (["--run", "a", "--hf", "b"], "either --run DIR or --hf DIR"),
        (["--run", "a"], "--task NAMES is needed: all, or speech: language, keyword"),
        (["--rum", "a"], "did you mean '--run'"),
        (["--run", "a", "--task", "all", "--limit", "3"], "--limit=3: must be at least 10"),
        (["--run", "a", "--task", "all", "--limit", "x"], "--limit=x: must be a whole number"),
        (["--run", "a", "--task", "all", "--step", "x"], "--step=x: must be a number"),
        (["--run", "a", "--task", "all", "--seconds", "0"], "--seconds=0: must be between"),
        (["--hf", "a", "--task", "all"], "--out DIR is needed with --hf"),
        (["--hf", "a", "--task", "all", "--out", "o", "--step", "1"], "--step: has no meaning"),
        (["--run", "/nonexistent", "--task", "all"], "holds no run"),
    ],
)
def test_nonsense(arguments, told):
    with pytest.raises(UserError) as caught:
        RUN(arguments)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--task", "labels"],
            "--task labels: no such task here; did you mean 'label'? valid: image",
        ),
        (["--task", "label", "--network", "eye"], "--network eye: no such network"),
        (["--task", "label", "--data", "nowhere"], "--data nowhere: valid"),
        (["--task", "segmentation"], "segmentation needs pictures with transparent parts"),
    ],
)
def test_what_the_data_or_the_network_do_not_have(folders, flags, told):
    given = ["--hf", str(folders / "vit"), "--data", str(folders / "pictures")]
    with pytest.raises(UserError) as caught:
        RUN([*given, "--out", str(folders / "other"), *flags])
    assert told in str(caught.value)
