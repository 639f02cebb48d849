"""Reads a Tux Paint stamp collection into items. Pure Python; decodes nothing.

Layout, below `CATEGORY/[SUBCATEGORY/...]`:
  NAME.png or NAME.svg        the picture; with both, the PNG counts
  NAME_mirror.*, NAME_flip.*  another drawing of the same stamp: NAME's words, no recordings
  NAME.txt                    first line English, then `LANG.utf8=TEXT`
  NAME_desc[_LANG].ogg/.wav   a person reads the description; without LANG, in English
  NAME.ogg/.wav               a sound effect
  NAME.dat                    how Tux Paint may tint the stamp; not data
"""

import re
import unicodedata
from pathlib import Path

from taichu_jax.data.integrity import read_file
from taichu_jax.data.items import Damaged, Item, Skipped, name_fault, text_fault
from taichu_jax.data.languages import INDEX, SCRIPTS

_LINE = re.compile(r"([A-Za-z]+(?:_[A-Za-z]+)?(?:@[A-Za-z]+)?)\.utf8=(.*)")
_RECORDING = re.compile(r"(?P<stem>.+)_desc(?:_(?P<lang>[A-Za-z]+(?:_[A-Z]+)?(?:@[a-z]+)?))?")
_VARIANT = re.compile(r"(?P<stem>.+?)(?:_mirror|_flip)+")
_DAMAGE = re.compile(r"\ufffd|\?\?|\\|[\x00-\x08\x0b-\x1f\x7f]")


def parse(root: Path) -> tuple[list[Item], list[Skipped]]:
    """All stamps below `root`, sorted by id (the path without suffix), and what was left out."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    pictures, sounds, texts, skipped = {}, {}, {}, []
    for path in files:
        stem = path.relative_to(root).with_suffix("").as_posix()
        if path.parent == root:
            continue  # licence and read-me of a collection
        if fault := name_fault(stem):
            skipped.append(Skipped(ascii(stem)[1:-1], f"name {fault}"))
            continue
        if path.suffix == ".png" or (path.suffix == ".svg" and stem not in pictures):
            pictures[stem] = path  # sorted: .png comes before .svg
        elif path.suffix in (".ogg", ".wav"):
            if stem in sounds:
                skipped.append(Skipped(_name(path, root), "a second file of the same recording"))
            else:
                sounds[stem] = path
        elif path.suffix == ".txt":
            texts[stem], bad = read_texts(path)
            skipped += [Skipped(_name(path, root) + where, reason) for where, reason in bad]

    recordings: dict[str, dict[str, Path]] = {}
    for stem, path in sounds.items():
        match = _RECORDING.fullmatch(stem)
        if match and match["stem"] in pictures:
            lang = match["lang"] or "en"
            if lang in INDEX:
                recordings.setdefault(match["stem"], {})[lang] = path
            else:
                skipped.append(Skipped(_name(path, root), "recording in an unknown language"))
        elif match:
            skipped.append(Skipped(_name(path, root), "recording without a picture"))
        elif stem not in pictures:
            skipped.append(Skipped(_name(path, root), "sound without a picture of its name"))
    for stem in texts.keys() - pictures.keys():
        skipped.append(Skipped(f"{stem}.txt", "description without a picture"))

    items = []
    for stem, picture in sorted(pictures.items()):
        variant = _VARIANT.fullmatch(stem)
        words = stem if stem in texts or variant is None else variant["stem"]
        folders = stem.split("/")[:-1]
        items.append(
            Item(
                id=stem,
                image=picture,
                texts=texts.get(words, {}),
                recordings=recordings.get(stem, {}),
                effect=sounds.get(stem),
                category=folders[0],
                subcategory="/".join(folders[1:]),
            )
        )
    return items, sorted(skipped)


def read_texts(path: Path) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """{language: description} of a NAME.txt, and the (place, reason) of each line left out.

    A translation counts as missing when it is the English sentence again in a language that is
    not a kind of English, and has two words or more: a single word may well be the same
    ('Hibiscus', 'Zero.'), a sentence is not. It counts as damaged when it has replacement or
    control characters or '??', or no letter of the only script its language is written in.
    """
    try:
        lines = read_file(path).decode("utf8", errors="replace").splitlines()
    except Damaged as damage:
        return {}, [("", str(damage))]
    english = lines[0].strip().lstrip("\ufeff") if lines else ""
    if not english:
        return {}, [("", "empty description")]
    if _DAMAGE.search(english) or text_fault(english):
        return {}, [("", "damaged English description")]
    texts, bad = {"en": english}, []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        lang, text = (match[1], match[2].strip()) if match else ("", "")
        if reason := _fault(match is not None, lang, text, texts):
            bad.append((f":{number}", reason))
        else:
            texts[lang] = text
    return texts, bad


def _fault(matched: bool, lang: str, text: str, texts: dict[str, str]) -> str | None:
    if not matched:
        return "damaged line: not LANG.utf8=TEXT"
    if lang not in INDEX:
        return "text in an unknown language"
    if lang in texts:
        return "a second text in the same language"
    if not text:
        return "empty translation"
    english = not lang.startswith("en") and text.casefold() == texts["en"].casefold()
    if english and len(re.findall(r"[^\W\d_]+", text)) > 1:
        return "untranslated text"
    if _DAMAGE.search(text) or text_fault(text):
        return "damaged text"
    if lang in SCRIPTS and not _written_in(text, SCRIPTS[lang]):
        return "text in the wrong script"
    return None


def _written_in(text: str, scripts: tuple[str, ...]) -> bool:
    letters = [c for c in text if c.isalpha()]
    return not letters or any(unicodedata.name(c, "").startswith(scripts) for c in letters)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
