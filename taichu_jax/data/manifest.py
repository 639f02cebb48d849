"""A person's own data: a JSON-lines manifest, read into items.

One example a line; every key but `id` may be missing, paths are relative to the manifest and must not
lead out of its folder (or of the one that is given as root). Pictures are PNG, JPEG, GIF, WebP, BMP or
SVG, sounds WAV, FLAC, OGG or MP3:
  {"id": "koala", "image": "koala.png", "texts": {"en": "A koala."},
   "recordings": {"fr": "koala_fr.wav"}, "effect": "growl.ogg",
   "category": "animals", "subcategory": "marsupials", "split": "train"}
"""

import json
import os
from pathlib import Path
from typing import Any

from taichu_jax.config import choices
from taichu_jax.data.items import SPLITS, Item, Skipped, leads_out, name_fault, text_fault
from taichu_jax.data.languages import known
from taichu_jax.errors import UserError

_TYPES = {
    "id": str, "image": str, "texts": dict, "recordings": dict, "effect": str, "category": str,
    "subcategory": str, "split": str,
}  # fmt: skip


def parse(manifest: Path, root: Path | None = None) -> tuple[list[Item], list[Skipped]]:
    """The manifest's items sorted by id, and what was left out: missing files, unusable texts.

    Args:
      root: the folder below which all files must lie, links followed; None: the manifest's.

    Raises:
      UserError: no such manifest, or a line that breaks the format; named with its number.
    """
    if not manifest.is_file():
        raise UserError(f"{manifest}: no such manifest")
    root = Path(os.path.realpath(manifest.parent if root is None else root))
    items: dict[str, Item] = {}
    skipped: list[Skipped] = []
    # Not splitlines: JSON may hold characters that end a line for it.
    for number, line in enumerate(manifest.read_bytes().split(b"\n"), start=1):
        if line.strip():
            item = _item(line, f"{manifest}:{number}", manifest.parent, root, skipped)
            if item.id in items:
                raise UserError(f"{manifest}:{number}: id {item.id!r} is there twice")
            items[item.id] = item
    if not items:
        raise UserError(f"{manifest}: is empty")
    return [items[key] for key in sorted(items)], skipped


def _item(line: bytes, where: str, folder: Path, root: Path, skipped: list[Skipped]) -> Item:
    try:
        entry: dict[str, Any] = json.loads(line.decode("utf8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(entry, dict) or not entry.get("id"):
        raise UserError(f"{where}: not an object with an id")
    for key, value in entry.items():
        if key not in _TYPES:
            raise UserError(f"{where}: no such key {key!r}; {choices(key, _TYPES)}")
        if not isinstance(value, _TYPES[key]):
            raise UserError(f"{where}: {key} must be a {_TYPES[key].__name__}, not {value!r}")
    for key in ("id", "category", "subcategory"):
        if entry.get(key) and (fault := name_fault(entry[key])):
            raise UserError(f"{where}: {key}={entry[key]!r} {fault}")
    if leads_out(entry["id"]):
        raise UserError(f"{where}: id={entry['id']!r} must not start with / nor contain ..")
    for key in ("texts", "recordings"):
        for lang, value in entry.get(key, {}).items():
            known(lang, f"{where}: {key}")
            if not isinstance(value, str):
                raise UserError(f"{where}: {key}.{lang} must be a str, not {value!r}")
    if (split := entry.get("split")) is not None and split not in SPLITS:
        raise UserError(f"{where}: no such split {split!r}; {choices(split, SPLITS)}")

    def path(name: str | None) -> Path | None:
        if name is None:
            return None
        if fault := name_fault(name):
            raise UserError(f"{where}: path {name[:100]!r} {fault}")
        if not Path(os.path.realpath(folder / name)).is_relative_to(root):
            raise UserError(
                f"{where}: {name!r} lies outside {root}; name another folder with --root"
            )
        if not os.path.isfile(folder / name):
            skipped.append(Skipped(name, "no such file"))
            return None
        return folder / name

    def usable(lang: str, text: str) -> bool:
        fault = text_fault(text)
        if fault:
            skipped.append(Skipped(f"{entry['id']}: texts.{lang}", fault))
        return fault is None

    voices = {lang: path(name) for lang, name in entry.get("recordings", {}).items()}
    return Item(
        id=entry["id"],
        image=path(entry.get("image")),
        texts={lang: text for lang, text in entry.get("texts", {}).items() if usable(lang, text)},
        recordings={lang: voice for lang, voice in voices.items() if voice},
        effect=path(entry.get("effect")),
        category=entry.get("category", ""),
        subcategory=entry.get("subcategory", ""),
        split=split,
    )
