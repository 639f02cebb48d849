"""What was given and what was written, as files: all of them or none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from taichu_jax.data import images
from taichu_jax.errors import UserError
from taichu_jax.evals.media import Folder
from taichu_jax.evals.report.page import Media, esc, page
from taichu_jax.inference.generate import Written
from taichu_jax.inference.inputs import Given
from taichu_jax.training.files import writing

PAGE, TEXT = "index.html", "text.txt"
_SIDE = 256  # pixels of the shown picture


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name at the end; after an error nothing is left.

    Raises:
      UserError: there is something of this name, or it cannot be written.
    """
    check_free(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with writing(path):
            yield partial
            partial.chmod(0o755)  # what mkdtemp makes is closed to others
            os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_free(path: Path) -> None:
    """Raises UserError unless a new folder can have this name."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise UserError(f"--out {path}: exists already; name another folder")


def save(
    folder: Path, given: Given, texts: Sequence[Written], *, run: str, notes: Sequence[str]
) -> None:
    """Writes text.txt, a line for each text, and the page.

    Args:
      run: what the page says of the run.
    """
    (folder / TEXT).write_text("".join(f"{x.text}\n" for x in texts), "utf8")
    with tempfile.TemporaryDirectory() as shown:  # the page has its media inside
        (folder / PAGE).write_text(_page(Path(shown), given, texts, run, notes), "utf8")


def _page(shown: Path, given: Given, texts, run: str, notes) -> str:
    files, media = Folder(shown), Media(shown)
    facts = ""
    if given.image is not None:
        canvas = images.render(images.canvas(given.picture, _SIDE), _SIDE)
        picture = media.picture("", files.picture(canvas), given.image.name, "pic")
        facts += f"<dt>picture</dt><dd>{picture}</dd>"
    if given.audio is not None:
        clip = media.clip("", files.clip(np.asarray(given.sound)), given.audio.name)
        facts += f"<dt>sound</dt><dd>{clip}</dd>"
    if given.text is not None:
        facts += f'<dt>words</dt><dd class="words">{esc(given.text)}</dd>'
    said = "".join(f'<p class="note">{esc(note)}</p>' for note in notes)
    inputs = f'<div class="card cap" style="display:block"><dl>{facts}</dl></div>{said}'
    rows = "".join(
        f'<tr><td class="words" style="white-space:normal">{esc(x.text)}</td><td>{x.log_p:.2f}</td></tr>'
        for x in texts
    )
    table = (
        '<div class="scroll card"><table><tr><th>text</th><th>log P</th></tr>'
        + rows
        + "</table></div>"
    )
    sections = [("given", "Given", inputs), ("written", "Written", table)]
    head = f'<h1>Generated</h1><p class="lead">{esc(run)}</p>'
    footer = "Written by <code>launch/generate.py</code>."
    return page("Generated", sections, head, media.sounds(), footer)
