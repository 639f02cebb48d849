"""Text to ids and back: byte-level BPE, plain bytes, or characters. The first two read any text.

A tokenizer is plain fields, so that a config can name it. `load(data_dir)` makes it ready: for
BPE and characters it learns the vocabulary on the first call, from the training split's texts, and
keeps it beside the data set.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from taichu_jax.errors import UserError

PAD, MASK, CLS, SEP, BOS, UNK = range(6)
SPECIALS = ("[PAD]", "[MASK]", "[CLS]", "[SEP]", "[BOS]", "[UNK]")  # UNK: for other vocabularies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """What both share: framing a sentence, and the inverse."""

    def encode(
        self, text: str, max_length: int, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """[CLS] ... [SEP], cut and padded: ids int32 [max_length], mask bool [max_length].

        `rng` is for training: without it a text always gets the same ids.
        """
        inner = self.pieces(text, rng)[: max_length - 2]
        ids = np.full(max_length, PAD, np.int32)
        ids[: len(inner) + 2] = [CLS, *inner, SEP]
        return ids, np.arange(max_length) < len(inner) + 2

    def load(self, data_dir: str | Path) -> "Tokenizer":
        """This tokenizer, ready for use."""
        raise NotImplementedError

    def pieces(self, text: str, rng: np.random.Generator | None = None) -> list[int]:
        """The ids of a text, without specials."""
        raise NotImplementedError

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text of some ids; specials are left out, broken characters become U+FFFD."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8, after the specials."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(SPECIALS) + 256

    def load(self, data_dir: str | Path) -> "ByteTokenizer":
        """Itself: there is nothing to train."""
        del data_dir
        return self

    def pieces(self, text: str, rng: np.random.Generator | None = None) -> list[int]:
        """The ids of a text, without specials."""
        del rng
        return [len(SPECIALS) + byte for byte in text.encode()]

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text of some ids; specials are left out, broken characters become U+FFFD."""
        first = len(SPECIALS)
        return bytes(int(i) - first for i in ids if i >= first).decode(errors="replace")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BPETokenizer(Tokenizer):
    """Byte-pair encoding over bytes, case kept (Sennrich et al. 2016, arXiv:1508.07909).

    `dropout` varies the pieces of a text in training, as BPE dropout does (arXiv:1910.13267):
    before each character but the first the text is cut with this probability, and the parts are
    encoded apart. Unlike the library's own dropout it follows a seed.
    """

    vocab_size: int = 4096  # ids, at most: a small corpus may have fewer pieces
    dataset: str = "tuxpaint_stamps"  # whose training texts the vocabulary is learnt from
    corpus: str = ""  # or a plain text file to learn it from
    dropout: float = 0.0
    file: str = ""  # a vocabulary; empty: that of `dataset`, found by `load`

    def load(self, data_dir: str | Path) -> "BPETokenizer":
        """This tokenizer with its vocabulary, which is trained now if it was never before.

        Raises:
          UserError: the data set is not prepared, or `file` is no vocabulary.
        """
        if self.file:
            _vocabulary(self.file)
            return self
        if self.corpus:
            return dataclasses.replace(self, file=str(self._from_corpus(Path(data_dir))))
        from taichu_jax.data.records import load_index, status_path

        load_index(data_dir, self.dataset, "train")  # says what is missing
        path = status_path(data_dir, self.dataset)
        fingerprint = json.loads(path.read_text("utf8"))["fingerprint"]
        file = path.parent / f"bpe-{self.vocab_size}-{fingerprint[:8]}.json"
        if not file.is_file():
            _train(self.vocab_size, _texts(data_dir, self.dataset), file)
        return dataclasses.replace(self, file=str(file))

    def _from_corpus(self, data_dir: Path) -> Path:
        corpus = Path(self.corpus)
        if not corpus.is_file():
            raise UserError(f"{corpus}: no such text file")
        text = corpus.read_text("utf8")
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        file = data_dir / "tokenizers" / f"{corpus.stem}-{self.vocab_size}-{digest}.json"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            _train(self.vocab_size, text.splitlines(), file)
        return file

    def pieces(self, text: str, rng: np.random.Generator | None = None) -> list[int]:
        """The ids of a text, without specials."""
        if not self.file:
            raise UserError("BPETokenizer has no vocabulary yet: call .load(data_dir) or set file")
        if rng is None or not self.dropout:
            return list(_ids(self.file, text))
        vocabulary = _vocabulary(self.file)
        cuts = np.flatnonzero(rng.random(max(0, len(text) - 1)) < self.dropout) + 1
        parts = itertools.pairwise([0, *cuts, len(text)])
        return [i for start, end in parts for i in vocabulary.encode(text[start:end]).ids]

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text of some ids; specials are left out, broken characters become U+FFFD."""
        plain = [int(i) for i in ids if i >= len(SPECIALS)]
        return _vocabulary(self.file).decode(plain, skip_special_tokens=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CharacterTokenizer(Tokenizer):
    """One id per Unicode character (NFC) of the training texts, the commonest first.

    A character outside the vocabulary becomes [UNK], and `unknown` counts such characters.

    Attributes:
      vocab_size: ids, at most; rarer characters than fit are unknown.
      languages: whose texts the vocabulary is learnt from; none: all.
      spoken: texts are reduced to what can be heard, see `spoken_form`.
    """

    vocab_size: int = 4096
    dataset: str = "tuxpaint_stamps"
    languages: tuple[str, ...] = ()
    spoken: bool = False
    file: str = ""  # a vocabulary; empty: that of `dataset`, found by `load`

    def load(self, data_dir: str | Path) -> "CharacterTokenizer":
        """This tokenizer with its vocabulary, which is learnt now if it was never before.

        Raises:
          UserError: the data set is not prepared, or `file` is no vocabulary.
        """
        if self.file:
            _characters(self.file)
            return self
        if self.vocab_size <= len(SPECIALS):
            raise UserError(f"vocab_size={self.vocab_size}: must be above {len(SPECIALS)}")
        from taichu_jax.data.records import load_index, status_path

        load_index(data_dir, self.dataset, "train")  # says what is missing
        path = status_path(data_dir, self.dataset)
        content = (path.read_text("utf8"), self.vocab_size, self.languages, self.spoken)
        digest = hashlib.sha256(repr(content).encode()).hexdigest()[:8]
        file = path.parent / f"characters-{self.vocab_size}-{digest}.json"
        if not file.is_file():
            texts = _texts(data_dir, self.dataset, self.languages)
            count = collections.Counter(c for text in texts for c in self._reduced(text))
            common = sorted(count, key=lambda c: (-count[c], c))[: self.vocab_size - len(SPECIALS)]
            _write(file, json.dumps({"characters": common}, ensure_ascii=False) + "\n")
        return dataclasses.replace(self, file=str(file))

    def pieces(self, text: str, rng: np.random.Generator | None = None) -> list[int]:
        """The ids of a text, without specials."""
        del rng
        if not self.file:
            raise UserError("CharacterTokenizer has no vocabulary yet: call .load(data_dir)")
        ids = _characters(self.file)
        return [ids.get(c, UNK) for c in self._reduced(text)]

    def unknown(self, texts: Iterable[str]) -> tuple[int, int]:
        """(characters outside the vocabulary, all characters) of some texts."""
        ids = [i for text in texts for i in self.pieces(text)]
        return ids.count(UNK), len(ids)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text of some ids; specials are left out."""
        characters, first = list(_characters(self.file)), len(SPECIALS)
        inside = range(first, first + len(characters))  # a head may have more ids than there are
        return "".join(characters[i - first] for i in map(int, ids) if i in inside)

    def _reduced(self, text: str) -> str:
        return spoken_form(text) if self.spoken else unicodedata.normalize("NFC", text)


def spoken_form(text: str) -> str:
    """What of a text can be heard: lower case, without punctuation, one space between words.

    Letters, marks and digits stay, and an apostrophe within a word. NFC.
    """
    text = unicodedata.normalize("NFC", text.lower()).replace("’", "'")
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "'" else " " for c in text)
    words = (word.strip("'") for word in kept.split())
    return " ".join(word for word in words if word)


def _texts(data_dir: str | Path, dataset: str, languages: tuple[str, ...] = ()) -> list[str]:
    from taichu_jax.data.records import open_records

    return [
        text
        for record in open_records(data_dir, dataset, "train")
        for language, text in record.texts.items()
        if not languages or language in languages
    ]


def _train(vocab_size: int, texts: list[str], file: Path) -> None:
    """Learns a vocabulary and stores it as the `tokenizers` library's JSON."""
    if vocab_size < len(SPECIALS) + 256:
        raise UserError(f"vocab_size={vocab_size}: must be {len(SPECIALS) + 256} or more")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    _write(file, tokenizer.to_str())


def _write(file: Path, content: str) -> None:
    """The whole file or none: others may look for it meanwhile."""
    partial = file.with_suffix(f".{hashlib.sha256(content.encode()).hexdigest()[:8]}")
    partial.write_text(content, "utf8")
    partial.replace(file)


@functools.lru_cache(maxsize=2**17)
def _ids(file: str, text: str) -> list[int]:
    return _vocabulary(file).encode(text).ids


@functools.lru_cache(maxsize=8)
def _vocabulary(file: str):
    from tokenizers import Tokenizer

    if not Path(file).is_file():
        raise UserError(f"{file}: no such vocabulary")
    tokenizer = Tokenizer.from_file(file)
    if any(tokenizer.token_to_id(name) != i for i, name in enumerate(SPECIALS)):
        raise UserError(f"{file}: its first ids are not {' '.join(SPECIALS)}")
    tokenizer.encode_special_tokens = True  # the five letters [PAD] in a text are just letters
    return tokenizer


@functools.lru_cache(maxsize=8)
def _characters(file: str) -> dict[str, int]:
    """{character: id}, in the order of the ids."""
    if not Path(file).is_file():
        raise UserError(f"{file}: no such vocabulary")
    try:
        characters = json.loads(Path(file).read_text("utf8"))["characters"]
        return {str(c): len(SPECIALS) + i for i, c in enumerate(characters)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no vocabulary of characters") from error
