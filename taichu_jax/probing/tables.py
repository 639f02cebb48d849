"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table


def tables(results: dict[str, Any]) -> Iterator[Table]:
    """One table for every network and task."""
    for name, network in results["networks"].items():
        for task, found in network["tasks"].items():
            yield _table(f"{name}, {task}: {found['title']}", found)


def _table(title: str, found: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("read from", no_wrap=True)
    for head in found["heads"]:
        table.add_column(head, justify="right")
    for row in found["rows"]:
        style = "bold" if row["kind"] == "encoder" else ""
        table.add_row(row["system"], *(cell(row, head) for head in found["heads"]), style=style)
    table.caption = "\n".join([summary(found), *found["notes"]])
    return table


def cell(row: dict[str, Any], head: str) -> str:
    """'41.2 block 1', or '–'."""
    score = row["scores"].get(head)
    if score is None:
        return "–"
    return f"{score:.1f} [dim]{row['layers'].get(head, '')}[/]".strip()


def summary(found: dict[str, Any]) -> str:
    """What the numbers are, and of how many examples."""
    return (
        f"{found['measure']}, {found['better']} is better; {found['train']:,} training examples, "
        f"{found['development']:,} of them held out to choose the layer; {found['test']:,} asked"
    )
