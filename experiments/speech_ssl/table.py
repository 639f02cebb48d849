"""The comparison's results.json, table.md and plots, from what the runs left."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np

from experiments.speech_ssl.methods import METHODS, Method

# column: (heading, higher is better)
MEASURES = {
    "words": ("words R@10", True),
    "cer10": ("CER 10 min", False),
    "cer60": ("CER 60 min", False),
    "transfer": ("CER to Romanian", False),
    "language": ("language", True),
    "category": ("category", True),
}


def write(folder: pathlib.Path, runs: pathlib.Path, steps: int) -> None:
    """Reads every finished run under `runs` and writes all files of `folder`."""
    found = {m.config: rows for m in METHODS if (rows := measured(runs / m.config))}
    if not found:
        return
    facts = {"steps": steps, "methods": found, "baselines": baselines(runs)}
    (folder / "results.json").write_text(json.dumps(facts, indent=1) + "\n", "utf8")
    (folder / "table.md").write_text(markdown(facts), "utf8")
    plot_probes(facts, folder / "probes.png")
    plot_curves(runs, found, folder / "curves.png")


def measured(folder: pathlib.Path) -> list[dict[str, Any]]:
    """One entry per finished seed: trained and untrained measures, and cost."""
    rows = []
    for run in sorted(folder.glob("[0-9]*/")):
        try:
            results = json.loads((run / "evaluation" / "results.json").read_text("utf8"))
            cost = json.loads((run / "cost.json").read_text("utf8"))
            cost["seconds a step"] = fastest(run)
            entries = {k: v["result"] for k, v in results["evaluations"].items()}
            rows.append(
                {
                    "seed": int(run.name),
                    "trained": measures(entries, "trained"),
                    "untrained": measures(entries, "untrained"),
                    "cost": cost,
                }
            )
        except (OSError, KeyError, ValueError):
            continue  # not finished yet
    return rows


def fastest(run: pathlib.Path) -> float:
    """Seconds a step in the run's fastest interval: other programs ran beside it, now and then."""
    lines = (run / "metrics.jsonl").read_text("utf8").splitlines()
    return 1 / max(row["rate"] for row in map(json.loads, lines) if "rate" in row)


def measures(entries: dict[str, Any], which: str) -> dict[str, float]:
    """The numbers of one encoder, by column; a probe that has not run yet has none."""

    def linear(name: str) -> float:
        # The last layer, whichever is best on the test items: no choice is made on them.
        rows = entries[name]["rows"]
        kinds = {"trained": rows[-1], "untrained": rows[2]}
        return kinds[which]["linear"]

    found = {name: linear(name) for name in ("language", "category")}
    found["words"] = entries["words"]["rows"][which]["R@10"]
    if "characters" in entries:
        found |= characters_of(entries["characters"]["rows"][which])
    return found


def characters_of(rates: dict[str, float]) -> dict[str, float]:
    """The columns of a character probe's row."""
    transfer = next(key for key in rates if key.startswith("to "))
    return {"cer10": rates["10 min"], "cer60": rates["60 min"], "transfer": rates[transfer]}


def baselines(runs: pathlib.Path) -> dict[str, dict[str, float | None]]:
    """Log-mel and chance, from the run that computed them."""
    for method in METHODS:
        file = runs / method.config / "0" / "evaluation" / "results.json"
        if not file.is_file():
            continue
        entries = {
            k: v["result"] for k, v in json.loads(file.read_text("utf8"))["evaluations"].items()
        }
        if not set(entries) >= {"words", "characters", "language", "category"}:
            continue
        if "log-mel" not in entries["words"]["rows"]:
            continue
        words = entries["words"]["rows"]["log-mel"]
        first = {name: entries[name]["rows"] for name in ("language", "category")}
        return {
            "log-mel": {
                "words": words["R@10"],
                **characters_of(entries["characters"]["rows"]["log-mel"]),
                "language": first["language"][1]["linear"],
                "category": first["category"][1]["linear"],
            },
            "chance": {
                "words": words["chance R@10"],
                "cer10": 100.0,
                "cer60": 100.0,
                "transfer": 100.0,
                "language": first["language"][0]["linear"],
                "category": first["category"][0]["linear"],
            },
        }
    return {}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % confidence interval by Student's t; nan for one value."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return mean, float(half)


def gain(rows: list[dict[str, Any]], column: str) -> tuple[float, float]:
    """Improvement on the untrained encoder of the same seed, positive where training helps."""
    sign = 1 if MEASURES[column][1] else -1
    return interval(
        [sign * (row["trained"][column] - row["untrained"][column]) for row in having(rows, column)]
    )


def having(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The seeds whose probe of this column has run."""
    return [row for row in rows if column in row["trained"]]


def markdown(facts: dict[str, Any]) -> str:
    """The whole table."""
    heads = [heading for heading, _ in MEASURES.values()]
    lines = [
        f"{facts['steps']} steps of 16 recordings each. Percent; mean ± half of the 95 % confidence",
        "interval over seeds (Student's t). In brackets the gain over the same encoder untrained, in",
        "bold where it is more than its interval.",
        "",
        "| method | seeds | " + " | ".join(heads) + " |",
        "| --- |" + " --- |" * (len(heads) + 1),
    ]
    labels = {"log-mel": "log-mel, no network", "chance": "chance"}
    for name, values in facts["baselines"].items():
        cells = " | ".join(f"{values[column]:.1f}" for column in MEASURES)
        lines.append(f"| {labels[name]} | – | {cells} |")
    for method in METHODS:
        rows = facts["methods"].get(method.config, [])
        if rows:
            cells = " | ".join(_cell(rows, column) for column in MEASURES)
            lines.append(f"| {method.label} | {len(rows)} | {cells} |")
    lines += ["", "What it costs on one core, when least disturbed:", "", *_costs(facts)]
    return "\n".join(lines) + "\n"


def _cell(rows: list[dict[str, Any]], column: str) -> str:
    rows = having(rows, column)
    if not rows:
        return "–"
    mean, half = interval([row["trained"][column] for row in rows])
    better, spread = gain(rows, column)
    text = f"{better:+.1f}"
    if better > spread:
        text = f"**{text}**"
    return f"{mean:.1f} ± {half:.1f} ({text})" if len(rows) > 1 else f"{mean:.1f} ({text})"


def _costs(facts: dict[str, Any]) -> list[str]:
    lines = [
        "| method | ms a step | GFLOP a step | largest memory, MiB | encoder's parameters |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        costs = [row["cost"] for row in facts["methods"].get(method.config, [])]
        if costs:
            middle = {key: float(np.median([cost[key] for cost in costs])) for key in costs[0]}
            seconds = min(cost["seconds a step"] for cost in costs)
            lines.append(
                f"| {method.label} | {1000 * seconds:.0f} | "
                f"{middle['GFLOP a step']:.1f} | {middle['MiB']:.0f} | "
                f"{middle['encoder parameters']:,.0f} |"
            )
    return lines


def plot_probes(facts: dict[str, Any], file: pathlib.Path) -> None:
    """Every measure of every method with its interval, beside untrained and log-mel."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = [m for m in METHODS if m.config in facts["methods"]]
    figure, axes = pyplot.subplots(
        1, len(MEASURES), figsize=(15, 0.32 * len(methods) + 1.6), sharey=True, dpi=110
    )
    places = np.arange(len(methods))[::-1]
    for axis, (column, (heading, higher)) in zip(axes, MEASURES.items(), strict=True):
        shown: list[float] = []
        for place, method in zip(places, methods, strict=True):
            rows = having(facts["methods"][method.config], column)
            if not rows:
                continue
            mean, half = interval([row["trained"][column] for row in rows])
            start, _ = interval([row["untrained"][column] for row in rows])
            shown += [mean, start]
            axis.plot(start, place, "o", mfc="none", mec="0.5", ms=5)
            axis.errorbar(
                mean, place, xerr=0 if math.isnan(half) else half, fmt="o", color="C0", ms=5
            )
        if facts["baselines"]:
            axis.axvline(facts["baselines"]["log-mel"][column], color="C1", lw=1, label="log-mel")
            axis.axvline(facts["baselines"]["chance"][column], color="0.7", lw=1, ls=":")
        if shown:  # intervals of two seeds reach far beyond what can be
            margin = 0.15 * (max(shown) - min(shown)) + 3
            axis.set_xlim(min(shown) - margin, max(shown) + margin)
        axis.set_title(f"{heading}, {'more' if higher else 'less'} is better", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(axis="y", color="0.93")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_yticks(places, [m.label for m in methods], fontsize=8)
    figure.text(
        0.01, 0.005, "filled: trained, with 95 % interval; open: untrained; orange: log-mel; dotted: "
        "chance, or writing nothing", fontsize=8,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(file)
    pyplot.close(figure)


def plot_curves(runs: pathlib.Path, found: dict[str, Any], file: pathlib.Path) -> None:
    """Loss and collapse monitor (deviation of the states) of every method's first seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = [m for m in METHODS if m.config in found]
    columns = 5
    rows = math.ceil(len(methods) / columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(15, 1.9 * rows), squeeze=False, dpi=100)
    for axis in axes.flat[len(methods) :]:
        axis.axis("off")
    for axis, method in zip(axes.flat, methods, strict=False):
        _curve(axis, runs / method.config, method)
    figure.text(0.01, 0.004, "blue: loss; green: deviation of the states over examples", fontsize=8)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(file)
    pyplot.close(figure)


def _curve(axis, folder: pathlib.Path, method: Method) -> None:
    lines = (next(folder.glob("[0-9]*/")) / "metrics.jsonl").read_text("utf8").splitlines()
    records = [json.loads(line) for line in lines]
    steps = [record["step"] for record in records]
    axis.plot(steps, [record["loss"] for record in records], color="C0", lw=1.2)
    monitor = next((key for key in records[-1] if key.endswith("feature_std")), None)
    if monitor:
        other = axis.twinx()
        other.plot(steps, [record.get(monitor) for record in records], color="C2", lw=1)
        other.set_ylim(bottom=0)
        other.tick_params(labelsize=6, colors="C2")
    axis.set_title(method.label, fontsize=8)
    axis.tick_params(labelsize=6)
