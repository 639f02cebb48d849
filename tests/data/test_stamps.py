"""Parsing a collection, and what is left out."""

import collections

import pytest

from taichu_jax.data import stamps
from taichu_jax.data.fetch import SAMPLE
from taichu_jax.data.items import Item
from taichu_jax.data.splits import BIG_LANGUAGES


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def test_names_say_what_a_file_is(tmp_path):
    root = write(
        tmp_path,
        {
            "LICENSE.txt": "not a stamp",
            "animals/bird/owl.txt": "An owl.\nfr.utf8=Une chouette.\nca@valencia.utf8=Un mussol.",
            "animals/bird/owl.png": "",
            "animals/bird/owl.svg": "",
            "animals/bird/owl.dat": "",
            "animals/bird/owl.ogg": "",
            "animals/bird/owl_desc.ogg": "",
            "animals/bird/owl_desc_fr.ogg": "",
            "animals/bird/owl_desc_pt_BR.wav": "",
            "animals/bird/owl_desc_xx.ogg": "",
            "animals/bird/owl_mirror.svg": "",
            "animals/bird/owl_en_GB.ogg": "",
            "animals/bird/gone_desc_fr.ogg": "",
            "animals/bird/gone.txt": "Gone.",
        },
    )
    items, skipped = stamps.parse(root)
    folder = root / "animals/bird"
    texts = {"en": "An owl.", "fr": "Une chouette.", "ca@valencia": "Un mussol."}
    owl, mirrored = items
    assert owl == Item(
        id="animals/bird/owl",
        image=folder / "owl.png",
        texts=texts,
        recordings={
            "en": folder / "owl_desc.ogg",
            "fr": folder / "owl_desc_fr.ogg",
            "pt_BR": folder / "owl_desc_pt_BR.wav",
        },
        effect=folder / "owl.ogg",
        category="animals",
        subcategory="bird",
    )
    assert mirrored.texts == texts and not mirrored.recordings and mirrored.effect is None
    assert mirrored.concept == owl.concept
    assert {(s.path.split("/")[-1], s.reason) for s in skipped} == {
        ("owl_desc_xx.ogg", "recording in an unknown language"),
        ("owl_en_GB.ogg", "sound without a picture of its name"),
        ("gone_desc_fr.ogg", "recording without a picture"),
        ("gone.txt", "description without a picture"),
    }


@pytest.mark.parametrize(
    "line, reason",
    [
        ("de.utf8=Ein Haus.", None),
        ("de.utf8=A red house.", "untranslated text"),
        ("en_GB.utf8=A red house.", None),
        ("de.utf8=", "empty translation"),
        ("de=Ein Haus.", "damaged line: not LANG.utf8=TEXT"),
        ("qq.utf8=Ein Haus.", "text in an unknown language"),
        ("de.utf8=Ein Haus ???", "damaged text"),
        ("he.utf8=\\tבית", "damaged text"),
        ("ta.utf8=´Õ ¸¢É¢ §¸¡Æ¢", "text in the wrong script"),
        ("ja.utf8=家", None),
        ("ja.utf8=10", None),
        ("ru.utf8=House.", "text in the wrong script"),
    ],
)
def test_lines_left_out_say_why(tmp_path, line, reason):
    (tmp_path / "a.txt").write_text(f"A red house.\n{line}\n", "utf8")
    texts, bad = stamps.read_texts(tmp_path / "a.txt")
    assert bad == ([(":2", reason)] if reason else [])
    assert len(texts) == (1 if reason else 2)


def test_one_word_may_be_the_same_in_another_language(tmp_path):
    (tmp_path / "a.txt").write_text("Hibiscus.\nde.utf8=Hibiscus.\nde.utf8=Eibisch", "utf8")
    texts, bad = stamps.read_texts(tmp_path / "a.txt")
    assert texts == {"en": "Hibiscus.", "de": "Hibiscus."}
    assert bad == [(":3", "a second text in the same language")]


def test_files_without_english_are_left_out(tmp_path):
    for content in (b"", b"\nfr.utf8=oui"):
        (tmp_path / "a.txt").write_bytes(content)
        assert stamps.read_texts(tmp_path / "a.txt") == ({}, [("", "empty description")])
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe A\nfr.utf8=oui")
    assert stamps.read_texts(tmp_path / "a.txt")[1] == [("", "damaged English description")]


def test_concepts_ignore_case_punctuation_and_article():
    def concept(**texts):
        return Item(id="x", texts=texts).concept

    assert concept(en="A Red Apple.") == concept(en="the red  apple!") == "red apple"
    assert concept(en="A.") == "a"
    assert concept(en="…", fr="Une pomme") == "une pomme"
    assert concept(en="…") == "x"


def test_the_shipped_sample():
    items, skipped = stamps.parse(SAMPLE)
    assert len(items) == 96 and len({item.category for item in items}) >= 14
    assert all(set(BIG_LANGUAGES) <= set(item.recordings) for item in items)
    assert sum(len(item.texts) for item in items) > 60 * len(items)
    assert set(collections.Counter(s.reason for s in skipped)) == {
        "text in the wrong script", "untranslated text", "damaged text"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 5e6
