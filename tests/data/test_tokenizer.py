"""Round trips, determinism, framing and dropout."""

from pathlib import Path

import numpy as np
import pytest

from taichu_jax.data.records import open_records
from taichu_jax.data.tokenizer import CLS, PAD, SEP, BPETokenizer, ByteTokenizer
from taichu_jax.errors import UserError

TEXTS = [
    "A koala.",
    "考拉在树上。",
    "Ёлка, МЕДВЕДЬ",
    "",
    " two  spaces ",
    "[MASK] [PAD]",
    "🐨\n\t",
    "a" * 50,
]


@pytest.fixture(scope="session")
def bpe(sample_data_dir):
    return BPETokenizer(vocab_size=1000).load(sample_data_dir)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(bpe, text):
    for tokenizer in (bpe, ByteTokenizer()):
        assert tokenizer.decode(tokenizer.pieces(text)) == text
        ids, mask = tokenizer.encode(text, 400)
        assert tokenizer.decode(ids) == text
        assert ids.dtype == np.int32 and mask.dtype == np.bool_
        assert ids.max() < tokenizer.vocab_size


def test_every_training_text_comes_back(bpe, sample_data_dir):
    for record in open_records(sample_data_dir, "tuxpaint_stamps", "train"):
        for text in record.texts.values():
            assert bpe.decode(bpe.pieces(text)) == text


def test_bpe_is_shorter_than_bytes_and_keeps_case(bpe):
    assert len(bpe.pieces("A flower.")) < 9
    assert bpe.pieces("FLOWER") != bpe.pieces("flower")


def test_framing_cuts_and_pads():
    ids, mask = ByteTokenizer().encode("abc", 8)
    assert list(ids) == [CLS, 6 + 97, 6 + 98, 6 + 99, SEP, PAD, PAD, PAD]
    assert list(mask) == [True] * 5 + [False] * 3
    ids, mask = ByteTokenizer().encode("abcdefgh", 5)
    assert list(ids) == [CLS, 6 + 97, 6 + 98, 6 + 99, SEP] and mask.all()


def test_training_is_deterministic(bpe, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS * 3 + ["the cat sat on the mat, the rat"] * 9), "utf8")
    tokenizer = BPETokenizer(vocab_size=280, corpus=str(corpus))
    first = tokenizer.load(tmp_path / "a")
    second = tokenizer.load(tmp_path / "b")
    assert Path(first.file).read_bytes() == Path(second.file).read_bytes()
    assert len(first.pieces("the the the")) == 3
    assert tokenizer.load(tmp_path / "a") == first
    assert first.load(tmp_path / "elsewhere") is first


def test_dropout_follows_the_generator_and_keeps_the_text(bpe):
    tokenizer = BPETokenizer(vocab_size=1000, dropout=0.3, file=bpe.file)
    text = "A beautiful flower, 一朵花"
    draws = [tuple(tokenizer.pieces(text, np.random.default_rng(seed))) for seed in range(8)]
    assert draws[3] == tuple(tokenizer.pieces(text, np.random.default_rng(3)))
    assert len(set(draws)) > 4
    assert all(tokenizer.decode(draw) == text for draw in draws)
    assert tokenizer.pieces(text) == bpe.pieces(text)


def test_mistakes_are_named(tmp_path, sample_data_dir):
    with pytest.raises(UserError, match="no vocabulary yet"):
        BPETokenizer().pieces("a")
    with pytest.raises(UserError, match="no such vocabulary"):
        BPETokenizer(file=str(tmp_path / "x.json")).load(tmp_path)
    with pytest.raises(UserError, match="no such text file"):
        BPETokenizer(corpus=str(tmp_path / "x.txt")).load(tmp_path)
    with pytest.raises(UserError, match="vocab_size"):
        BPETokenizer(vocab_size=100).load(sample_data_dir)
    with pytest.raises(UserError, match=r"prepare\.py"):
        BPETokenizer().load(tmp_path)
