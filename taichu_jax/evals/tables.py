"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table


def show(name: str, entry: dict[str, Any], console: Console | None = None) -> None:
    """Prints the tables of one evaluation."""
    console = console or Console()
    for table in tables(name, entry):
        console.print(table)


def tables(name: str, entry: dict[str, Any]) -> list[Table]:
    """One table per split; none for what is only to be looked at."""
    result, kind = entry["result"], entry["kind"]
    if kind == "Retrieval":
        return [_retrieval(name, split, table) for split, table in result["splits"].items()]
    if kind == "Captions":
        return [
            _table(
                f"{name}, {split}",
                ("written from", "chrF", "exact %", "WER %", "CER %", "BLEU-1", "BLEU-4", "CIDEr"),
                (
                    (
                        k,
                        *_row(
                            v["mean"],
                            ("chrF", "exact", "WER", "CER", "BLEU-1", "BLEU-4", "CIDEr"),
                        ),
                    )
                    for k, v in table.items()
                ),
            )
            for split, table in result["splits"].items()
        ]
    if kind == "Generation":
        return [
            _generation(f"{name}, {split}, {made} judged by {target}", rows)
            for split, table in result["splits"].items()
            for made, targets in table["scores"].items()
            for target, rows in targets.items()
        ]
    if kind == "SpeechRecognition":
        return [
            _table(
                f"{name}, {split}",
                ("decoded", "CER %", "WER %", "recordings"),
                (
                    (k, *_row(v["overall"], ("CER", "WER")), str(v["overall"]["recordings"]))
                    for k, v in table.items()
                ),
            )
            for split, table in result["splits"].items()
        ]
    if kind in ("CategoryProbe", "LanguageProbe"):
        rows = ((r["features"], *_row(r, ("linear", "knn"))) for r in result["rows"])
        return [_table(f"{name}, {result['test_split']}", ("features", "linear %", "k-NN %"), rows)]
    if kind == "ModalitySubsets":
        keys = [k for k in ("accuracy", "chrF", "WER", "exact") if k in result["rows"][0]]
        rows = ((r["subset"], *_row(r, keys)) for r in (*result["rows"], result["chance"]))
        return [_table(f"{name}, {result['split']}", ("present", *keys), rows)]
    if kind == "PictureTokens":
        forms = {"PSNR": "{:.2f}", "SSIM": "{:.3f}", "error": "{:.4f}"}
        rows = (
            (r["from"], *(_row(r, (k,), f)[0] for k, f in forms.items())) for r in result["rows"]
        )
        used = f"{result['codes']['used']} of {result['codes']['entries']} codes used"
        return [_table(f"{name}, {result['split']}, {used}", ("drawn from", *forms), rows)]
    if kind == "Resynthesis":
        rows = (
            (
                r["way"],
                r["form"],
                _row(r, ("mel",), "{:.3f}")[0],
                _row(r, ("decibels",), "{:.2f}")[0],
            )
            for r in result["rows"]
        )
        return [_table(f"{name}, {result['split']}", ("made by", "as", "log-mel", "dB"), rows)]
    if kind == "SpeechSynthesis":
        rows = (
            (
                r["way"],
                _row(r, ("mel",), "{:.3f}")[0],
                _row(_heard(result, r["way"]), ("CER",))[0],
            )
            for r in result["rows"]
        )
        lengths = _row(result["durations"], ("length", "length_guess"))
        title = f"{name}, {result['split']}, lengths {lengths[0]} % off, constant {lengths[1]} %"
        return [_table(title, ("said by", "log-mel, warped", "CER %"), rows)]
    if "error" in result:
        row = ("mean squared error", *_row(result, ("error", "guess"), "{:.3f}"))
        return [_table(name, ("", "model", "simplest guess"), [row])]
    return []


def _retrieval(name: str, split: str, table: dict[str, Any]) -> Table:
    keys = tuple(next(iter(table.values()))["mean"])
    keys = tuple(k for k in keys if k != "mean")
    rows = (
        (
            direction,
            *(f"{entry['mean'][k]:.1f} [dim]{entry['chance'][k]:.1f}[/]" for k in keys),
        )
        for direction, entry in table.items()
    )
    return _table(f"{name}, {split} (dim: chance)", ("direction", *keys), rows)


def _generation(title: str, rows: dict[str, Any]) -> Table:
    keys = [k for k in rows["chance"] if k.startswith("R@")]
    body = (
        (
            source,
            *(
                f"{row[k]:.1f} [dim]{row['interval'][k][0]:.0f}–{row['interval'][k][1]:.0f}[/]"
                for k in keys
            ),
            f"{row['median']:.3g}",
        )
        for source, row in rows.items()
    )
    return _table(f"{title} (dim: 95 %)", ("made from", *keys, "median"), body)


def _heard(result: dict[str, Any], way: str) -> dict[str, Any]:
    """The recogniser's scores of one way of making sound; nothing where it was not asked."""
    return (result["errors"] or {}).get(way, {}).get("overall", {})


def _row(values: dict[str, Any], keys: Iterable[str], form: str = "{:.1f}") -> list[str]:
    return ["–" if values.get(k) is None else form.format(values[k]) for k in keys]


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    return table
