"""What every source of data is turned into before it is prepared: one `Item` per picture."""

import dataclasses
import re
import unicodedata
from pathlib import Path

SPLITS = ("train", "validation", "test", "test_recordings")


class Damaged(Exception):
    """A file or record that cannot be used. The message is the reason, without the file's name."""


def text_fault(text: str) -> str | None:
    """Why a text cannot be used, or None. Tabs and line ends are no fault."""
    if not text.strip():
        return "empty text"
    if _CONTROL.search(text):
        return "text with control or broken characters"
    return None


# Control characters, halves of a pair of UTF-16 (they cannot be written), and what stands for them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


def name_fault(name: str) -> str | None:
    """Why a name cannot safely be shown and stored, or None."""
    if not 0 < len(name) <= 1000:
        return "must have 1 to 1,000 characters"
    return None if name.isprintable() else "has characters that cannot be printed"


def leads_out(name: str) -> bool:
    """Whether a relative name, taken as a path, would leave the folder it is looked up in."""
    return name.startswith("/") or ".." in name.split("/")


@dataclasses.dataclass(frozen=True, order=True)
class Skipped:
    """Something left out of the prepared data, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A picture with its words and voices, still as paths. Any of the three may be missing."""

    id: str
    image: Path | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    recordings: dict[str, Path] = dataclasses.field(default_factory=dict)
    effect: Path | None = None
    category: str = ""
    subcategory: str = ""
    split: str | None = None  # None: chosen by hash

    @property
    def concept(self) -> str:
        """Pictures with the same key show the same thing: never negatives, never in two splits.

        The key is the English description (or the first in alphabetical order of languages, or
        the id) without case, punctuation and leading article.
        """
        for lang in ["en", *sorted(self.texts)]:
            words = re.findall(r"\w+", unicodedata.normalize("NFKC", self.texts.get(lang, "")))
            words = [word.casefold() for word in words]
            if len(words) > 1 and words[0] in ("a", "an", "the", "some"):
                words = words[1:]
            if words:
                return " ".join(words)
        return self.id
