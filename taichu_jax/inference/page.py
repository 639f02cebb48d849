"""What was given and what was written, as files: all of them or none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from taichu_jax.data import images
from taichu_jax.data.audio import RATE, log_mel
from taichu_jax.errors import UserError
from taichu_jax.evals.media import Folder
from taichu_jax.evals.report.page import Media, esc, page
from taichu_jax.inference.generate import Drawn, Made, Spoken, Written
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


def save(folder: Path, given: Given, made: Made, *, run: str) -> None:
    """Writes text.txt, a line for each text; image_N.png and audio_N.wav for sample N; and the page.

    Pictures have the tokeniser's size, every pixel as it was decoded. Sounds have 16 bits and 16 kHz.

    Args:
      run: what the page says of the run.
    """
    if made.texts:
        (folder / TEXT).write_text("".join(f"{x.text}\n" for x in made.texts), "utf8")
    for number, picture in enumerate(made.pictures):
        Image.fromarray(picture.pixels).save(folder / image_name(number), "PNG", optimize=True)
    for number, sound in enumerate(made.sounds):
        samples = np.round(np.clip(sound.wave, -1.0, 1.0) * 32767).astype(np.int16)
        soundfile.write(folder / audio_name(number), samples, RATE, "PCM_16", format="WAV")
    with tempfile.TemporaryDirectory() as shown:  # the page has its media inside
        (folder / PAGE).write_text(_page(Path(shown), given, made, run), "utf8")


def image_name(number: int) -> str:
    """The file of a sample."""
    return f"image_{number}.png"


def audio_name(number: int) -> str:
    """The file of a sample."""
    return f"audio_{number}.wav"


def _page(shown: Path, given: Given, made: Made, run: str) -> str:
    files, media = Folder(shown), Media(shown)
    said = "".join(f'<p class="note">{esc(note)}</p>' for note in made.notes)
    sections = [("given", "Given", _given(files, media, given) + said)]
    if made.pictures:
        sections.append(("drawn", "Drawn", _pictures(files, media, made.pictures)))
    if made.sounds:
        sections.append(("spoken", "Spoken", _sounds(files, media, made.sounds)))
    if made.texts:
        sections.append(("written", "Written", _texts(made.texts)))
    head = f'<h1>Generated</h1><p class="lead">{esc(run)}</p>'
    footer = "Written by <code>launch/generate.py</code>."
    return page("Generated", sections, head, media.sounds(), footer)


def _given(files: Folder, media: Media, given: Given) -> str:
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
    return f'<div class="card cap" style="display:block"><dl>{facts}</dl></div>'


def _pictures(files: Folder, media: Media, pictures: Sequence[Drawn]) -> str:
    cards = ""
    for number, picture in enumerate(pictures):
        name, (height, width, _) = image_name(number), picture.pixels.shape
        shown = media.picture("", files.picture(picture.pixels, exact=True), name, "pixels")
        cards += (
            f'<div class="card rec" style="display:block"><figure>{shown}<figcaption>{name}, '
            f"{width} × {height} pixels</figcaption></figure></div>"
        )
    size = "grid-template-columns:repeat(auto-fill,minmax(200px,1fr))"
    note = '<p class="note">Shown larger than they are, every pixel as a square.</p>'
    return f'{note}<div class="grid" style="{size}">{cards}</div>'


def _sounds(files: Folder, media: Media, sounds: Sequence[Spoken]) -> str:
    cards = ""
    for number, sound in enumerate(sounds):
        name, mel = audio_name(number), log_mel(sound.wave)
        low, high = np.percentile(mel, [2, 99.5])
        clip = media.clip("", files.clip(sound.wave), name)
        shown = media.picture(
            "", files.spectrogram(mel, low, high), f"{name}, spectrogram", "pixels"
        )
        cards += (
            f'<div class="card spec"><div class="top"><span>{name}</span>{clip}</div>'
            f"<figure>{shown}</figure></div>"
        )
    note = '<p class="note">Below each, its log-mel spectrogram, 0 to 8 kHz.</p>'
    return f'{note}<div class="grid specs">{cards}</div>'


def _texts(texts: Sequence[Written]) -> str:
    rows = "".join(
        f'<tr><td class="words" style="white-space:normal">{esc(x.text)}</td><td>{x.log_p:.2f}</td></tr>'
        for x in texts
    )
    head = "<tr><th>text</th><th>log P</th></tr>"
    return f'<div class="scroll card"><table>{head}{rows}</table></div>'
