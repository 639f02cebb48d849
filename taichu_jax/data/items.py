"""What every source of data is turned into before it is prepared: one `Item` per picture."""

import dataclasses
import re
import unicodedata
from pathlib import Path

SPLITS = ("train", "validation", "test", "test_recordings")


class Damaged(Exception):
    """A file or record that cannot be used. The message is the reason, without the file's name."""


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
