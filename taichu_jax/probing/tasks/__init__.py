"""The tasks of each modality, by name: on prepared data, and on somebody's own."""

from __future__ import annotations

from taichu_jax.probing.examples import Examples
from taichu_jax.probing.tasks.base import Task
from taichu_jax.probing.tasks.classification import Classification
from taichu_jax.probing.tasks.keyword import Keyword
from taichu_jax.probing.tasks.recognition import Recognition
from taichu_jax.probing.tasks.retrieval import Retrieval
from taichu_jax.probing.tasks.segmentation import Segmentation
from taichu_jax.probing.tasks.tagging import Tagging
from taichu_jax.probing.tasks.translation import Translation

PREPARED: dict[str, dict[str, Task]] = {
    "speech": {
        "language": Classification(
            column="language",
            test_split="test_recordings",
            note="where one person speaks a language, this is also who speaks",
        ),
        "keyword": Keyword(),
        "category": Classification(column="category"),
        "ctc": Recognition(),
    },
    "image": {
        "category": Classification(column="category"),
        "subcategory": Classification(column="subcategory"),
        "segmentation": Segmentation(),
        "retrieval": Retrieval(column="category"),
    },
    "text": {
        "language": Classification(column="language"),
        "category": Classification(column="category"),
        "retrieval": Translation(),
    },
}
NO_LABELS = {
    "voice": "says of no recording who speaks (one person for most languages: see `language`)",
    "emotion": "has no labels of emotions",
    "tagging": "has no words with tags",
}
"""Tasks of one's own files only, and what a prepared data set lacks for them."""


def available(examples: Examples) -> dict[str, Task]:
    """The tasks that the examples have labels for, by name."""
    if not examples.own:
        return dict(PREPARED[examples.modality])
    columns = {column for row in examples.rows for column in row.labels}
    found: dict[str, Task] = {}
    if "tags" in columns:
        found["tagging"] = Tagging()
    if examples.modality == "image":
        found["segmentation"] = Segmentation()
    for column in sorted(columns - {"tags", "text"}):
        found[column] = Classification(column=column)
        if examples.modality == "image" and "retrieval" not in found:
            found["retrieval"] = Retrieval(column="label" if "label" in columns else column)
    if examples.modality == "speech" and "text" in columns:
        found |= {"ctc": Recognition(), "keyword": Keyword(test_split="test")}
    return found
