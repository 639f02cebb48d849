"""The documents say what is so."""

from __future__ import annotations

import pathlib
import re
import runpy
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


def test_systems_page_is_generated_from_the_code():
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["systems"]()
    assert generated == (ROOT / "docs" / "systems.md").read_text("utf8"), "python docs/generate.py"


def test_paths_that_documents_name_exist():
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for path in re.findall(
            r"`((?:taichu_jax|configs|launch|tests|docs|experiments|sample)/[\w./-]+)`",
            document.read_text("utf8"),
        ):
            assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_shell_scripts_parse():
    for script in (*(ROOT / "launch").glob("*.sh"), ROOT / ".ci" / "run"):
        shell = "bash" if "bash" in script.read_text("utf8").partition("\n")[0] else "sh"
        subprocess.run([shell, "-n", str(script)], check=True)
