"""Writes the notebooks of this folder from its scripts.

python colabs/generate.py

A script is in jupytext's percent format and runs as plain Python too. Its notebook has a badge on top
that opens it in Colab, and the text of set_up.py in place of the import of it.
"""

import pathlib
import re

import jupytext
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parent
SET_UP = "set_up.py"
NAMES = ("speech_probing", "image_probing", "tri_modal", "add_objective")
IMPORT = re.compile(r"^(import|from) set_up\b.*$", re.M)
COLAB = "https://colab.research.google.com"


def repository() -> str:
    """OWNER/NAME on GitHub, as set_up.py has it."""
    text = (FOLDER / SET_UP).read_text("utf8")
    found = re.search(r'^REPOSITORY = "https://github\.com/([^/"]+/[^/"]+)"$', text, re.M)
    if not found:
        raise ValueError(
            f"{FOLDER / SET_UP}: has no line REPOSITORY = 'https://github.com/OWNER/NAME'"
        )
    return found[1]


def badge(name: str) -> str:
    """The Markdown of a notebook's badge."""
    where = f"{COLAB}/github/{repository()}/blob/main/colabs/{name}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({where})"


def notebook(name: str) -> str:
    """The notebook of a script as JSON; the same bytes each time.

    Raises:
      ValueError: the script does not import set_up in exactly one cell, alone.
    """
    script = FOLDER / f"{name}.py"
    found = jupytext.reads(script.read_text("utf8"), fmt="py:percent")
    cells = [cell for cell in found.cells if IMPORT.search(cell.source)]
    if len(cells) != 1 or not IMPORT.fullmatch(cells[0].source):
        raise ValueError(f"{script}: one cell must be the import of set_up and nothing else")
    cells[0].source = (FOLDER / SET_UP).read_text("utf8").strip()
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(badge(name)), *found.cells],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # nbformat draws them
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


if __name__ == "__main__":
    for name in NAMES:
        (FOLDER / f"{name}.ipynb").write_text(notebook(name), "utf8")
