"""Characters: round trips, what is unknown, what is heard, and the stored vocabulary."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from taichu_jax.data.records import open_records
from taichu_jax.data.tokenizer import CLS, PAD, SEP, SPECIALS, CharacterTokenizer, spoken_form
from taichu_jax.errors import UserError
from taichu_jax.ops.vocabulary import UNK


def texts_of(data_dir, languages=()):
    return [
        text
        for record in open_records(data_dir, "tuxpaint_stamps", "train")
        for language, text in record.texts.items()
        if not languages or language in languages
    ]


def test_every_training_text_comes_back_in_composed_form(sample_data_dir):
    tokenizer = CharacterTokenizer().load(sample_data_dir)
    for text in texts_of(sample_data_dir):
        assert tokenizer.decode(tokenizer.pieces(text)) == unicodedata.normalize("NFC", text)
    assert tokenizer.unknown(texts_of(sample_data_dir))[0] == 0
    decomposed = unicodedata.normalize("NFD", "é")
    assert len(decomposed) == 2 and len(tokenizer.pieces(decomposed)) == 1


def test_ids_are_ordered_by_frequency_and_rare_characters_are_unknown(sample_data_dir):
    languages = ("fr", "es")
    tokenizer = CharacterTokenizer(vocab_size=12, languages=languages).load(sample_data_dir)
    text = unicodedata.normalize("NFC", "".join(texts_of(sample_data_dir, languages)))
    common = sorted(set(text), key=lambda c: (-text.count(c), c))[:6]
    assert tokenizer.pieces("".join(common)) == list(range(6, 12))
    assert tokenizer.pieces("字" + common[0]) == [UNK, 6]
    assert tokenizer.decode([CLS, 6, UNK, 7, SEP, PAD, 200]) == common[0] + common[1]
    unknown, total = tokenizer.unknown(["字" + common[0], common[1]])
    assert (unknown, total) == (1, 3)
    ids, mask = tokenizer.encode(common[0] * 2, 6)
    assert ids.tolist() == [CLS, 6, 6, SEP, PAD, PAD] and mask.sum() == 4
    assert ids.dtype == np.int32


def test_the_vocabulary_is_kept_and_follows_the_settings(sample_data_dir, tmp_path):
    first = CharacterTokenizer(languages=("fr",)).load(sample_data_dir)
    assert CharacterTokenizer(languages=("fr",)).load(sample_data_dir) == first
    assert CharacterTokenizer(languages=("ru",)).load(sample_data_dir).file != first.file
    stored = json.loads(Path(first.file).read_text("utf8"))["characters"]
    assert len(stored) == len(set(stored)) and all(len(c) == 1 for c in stored)
    assert first.pieces(stored[-1]) == [len(SPECIALS) + len(stored) - 1]
    assert first.load(tmp_path) is first


def test_spoken_form_keeps_what_is_heard():
    assert spoken_form("Une  POMME, rouge !") == "une pomme rouge"
    assert spoken_form("L’avió d'ahir 'ara'") == "l'avió d'ahir ara"
    assert spoken_form("a\N{COMBINING ACUTE ACCENT}2-3") == "á2 3"
    assert spoken_form("हिन्दी।") == "हिन्दी"  # vowel signs are marks, not punctuation
    assert spoken_form("«…»") == ""


def test_spoken_texts(sample_data_dir):
    tokenizer = CharacterTokenizer(languages=("fr",), spoken=True).load(sample_data_dir)
    assert tokenizer.decode(tokenizer.pieces("Une pomme !")) == "une pomme"
    characters = json.loads(Path(tokenizer.file).read_text("utf8"))["characters"]
    assert not {"A", ".", ","} & set(characters)


def test_mistakes_are_named(tmp_path, sample_data_dir):
    with pytest.raises(UserError, match="no vocabulary yet"):
        CharacterTokenizer().pieces("a")
    with pytest.raises(UserError, match="no such vocabulary"):
        CharacterTokenizer(file=str(tmp_path / "x.json")).load(tmp_path)
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(UserError, match="is no vocabulary of characters"):
        CharacterTokenizer(file=str(tmp_path / "bad.json")).load(tmp_path)
    with pytest.raises(UserError, match="vocab_size=6: must be above 6"):
        CharacterTokenizer(vocab_size=6).load(sample_data_dir)
    with pytest.raises(UserError, match=r"prepare\.py"):
        CharacterTokenizer().load(tmp_path)
