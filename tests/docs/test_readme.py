"""README's example works when it is copied as it stands; its commands, links and keys exist."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from taichu_jax.training.experiment import defaults
from tests.training.tiny import losses

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf8")
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.S | re.M)
COMMANDS = [line for kind, block in FENCES if kind == "sh" for line in block.splitlines() if line]


def example() -> dict[str, str]:
    """Path -> content of the blocks whose first line is a comment with a path."""
    blocks = (re.match(r"# (\S+\.py)\n", block) and block for _, block in FENCES)
    parts = (block.split("\n", 1) for block in blocks if block)
    return {first.removeprefix("# "): rest for first, rest in parts}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The program with the example's files added: nothing of it enters this process."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("taichu_jax", "configs", "launch", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    files = example()
    assert len(files) == 4
    for path, content in files.items():
        assert not (root / path).exists(), f"{path} exists: README's example must be something new"
        (root / path).write_text(content, "utf8")
    return root


def run(checkout, *arguments, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_passes_its_tests(checkout):
    # Of the contracts, those that share one compilation; the others cost another three.
    said = run(
        checkout,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-k", "barlow_twins and not mixed and not eight and not bfloat16"),
        *("tests/objectives/test_barlow_twins.py", "tests/test_contracts.py", "tests/configs"),
        UPDATE_GOLDEN="1",
    )
    assert "passed" in said
    assert "skipped" not in said


def test_the_example_trains(checkout, tmp_path):
    said = run(
        checkout,
        *("launch/train.py", "--config", "configs/vision/barlow_twins_stamps.py"),
        *("--config.steps=2", "--config.streams.views.batch_size=8", "--config.mesh.data=1"),
        *("--config.networks.image.depth=1", "--config.networks.image.width=32"),
        *(f"--config.data.dir={tmp_path / 'data'}", f"--config.data.source={ROOT / 'sample'}"),
        *("--run_dir", tmp_path / "run"),
    )
    assert "done: 2 steps" in said
    assert len(losses(tmp_path / "run")) == 2


def test_the_example_is_formatted(checkout):
    files = [checkout / path for path in example()]
    for command in (("check",), ("format", "--check")):
        run(checkout, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", *files)


def test_commands_exist():
    assert any(command.startswith("make demo") for command in COMMANDS)
    makefile = (ROOT / "Makefile").read_text("utf8")
    new = example()
    for command in COMMANDS:
        command = command.split("#")[0].strip()
        if command.startswith("make "):
            assert f"\n{command.split()[1]}:" in makefile, command
        for path in re.findall(r"\b(?:launch|configs|tests|docs)/[\w./]+", command):
            assert (ROOT / path).exists() or path in new, command
        if match := re.match(r"python (launch/\w+\.py)", command):
            known = (ROOT / match[1]).read_text("utf8").split('"""')[1] + " --help"
            for flag in re.findall(r"--\w+", command):
                assert flag in known, f"{command}: {flag}"


def test_every_top_level_key_is_explained():
    rows = re.findall(
        r"^\| (`[^|]+) \|", TEXT.split("## Train anything")[1].split("\n## ")[0], re.M
    )
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(defaults())


def test_the_manifest_line_is_one(tmp_path):
    from taichu_jax.data import manifest

    (line,) = [block for kind, block in FENCES if kind == "json"]
    for name in ("koala.png", "koala_fr.wav"):
        (tmp_path / name).touch()
    (tmp_path / "my.jsonl").write_text(line, "utf8")
    items, skipped = manifest.parse(tmp_path / "my.jsonl")
    assert [item.id for item in items] == [json.loads(line)["id"]]
    assert skipped == []


def test_links_lead_somewhere():
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf8")):
            assert (document.parent / link).exists(), f"{document.name} links {link}"
