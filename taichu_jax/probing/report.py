"""report.html of a study: tables, and the development score of every layer as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taichu_jax.evals.report.page import esc, page
from taichu_jax.probing.tables import summary
from taichu_jax.training.files import write_whole, writing

NAME = "report.html"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 190, 40, 34, 10
FOOTER = "Written by <code>launch/probe.py</code>."


def write_report(out: Path, results: dict[str, Any]) -> Path:
    """Writes OUT/report.html and returns its path."""
    sections = []
    for name, network in results["networks"].items():
        content = "".join(_task(task, found) for task, found in network["tasks"].items())
        if content:
            sections.append((name, name, _network(network) + content))
    if results["left_out"]:
        items = "".join(
            f"<li><b>{esc(where)}</b>: {esc(why)}</li>"
            for where, why in results["left_out"].items()
        )
        sections.append(("left-out", "Left out", f"<ul>{items}</ul>"))
    text = page("Probes", sections, _head(results), "", FOOTER)
    with writing(out / NAME):
        write_whole(out / NAME, text)
    return out / NAME


def _head(results: dict[str, Any]) -> str:
    facts = {**results["source"], **results["settings"]}
    facts |= {f"data, {kind}": name for kind, name in results["data"].items()}
    cells = "".join(f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in facts.items())
    return (
        "<h1>Probes of frozen layers</h1><p class=lead>What can be read off the hidden states, beside "
        "simple guesses, the raw input, the same network without training, and one that was trained on "
        f"these labels alone.</p><dl class=facts>{cells}</dl>"
    )


def _network(network: dict[str, Any]) -> str:
    rate = {"speech": "{:g} states a second", "image": "{:g} rows of patches", "text": ""}
    facts = [
        network["modality"],
        f"{network['parameters']:,} parameters",
        f"{len(network['layers'])} layers",
        rate[network["modality"]].format(network["rate"]),
    ]
    return f"<p class=note>{esc(', '.join(x for x in facts if x))}</p>"


def _task(name: str, found: dict[str, Any]) -> str:
    heads = "".join(f"<th>{esc(head)}</th>" for head in found["heads"])
    top = max((x for row in found["rows"] for x in row["scores"].values() if x), default=1.0)
    top = 100.0 if found["better"] == "higher" else max(100.0, top)
    rows = "".join(
        f'<tr class="{"base" if row["kind"] == "baseline" else ""}"><td>{esc(row["system"])}</td>'
        + "".join(f"<td>{_number(row, head, top)}</td>" for head in found["heads"])
        + "</tr>"
        for row in found["rows"]
    )
    notes = "".join(f"<br>{esc(note)}" for note in found["notes"])
    return (
        f"<h3>{esc(name)}: {esc(found['title'])}</h3><p class=note>{esc(summary(found))}{notes}</p>"
        f"<div class='card scroll'><table><tr><th>read from</th>{heads}</tr>{rows}</table></div>"
        f"{_shares(found)}{plot(found)}"
    )


def _number(row: dict[str, Any], head: str, top: float) -> str:
    score = row["scores"].get(head)
    if score is None:
        return "–"
    layer = row["layers"].get(head, "")
    note = f" <small>{esc(layer)}</small>" if layer else ""
    width = 100 * min(max(score, 0.0), top) / top
    return (
        f"<span class=num><em>{score:.1f}</em><span class=meter><i style='width:{width:.1f}%'></i>"
        f"</span></span>{note}"
    )


def _shares(found: dict[str, Any]) -> str:
    """How the weighted sum of the encoder weighs its layers."""
    for row in found["rows"]:
        if row["kind"] == "encoder" and row.get("shares"):
            shares = ", ".join(f"{k} {100 * v:.0f} %" for k, v in row["shares"].items())
            return f"<p class=note>Weighted sum: {esc(shares)}</p>"
    return ""


def plot(found: dict[str, Any]) -> str:
    """The development score of every layer, a line for every system and head with layers."""
    curves = [
        c | {"values": [x for x in c["values"] if x is not None]}
        for c in found["curves"]
        if len(c["values"]) > 1
    ]
    curves = [c for c in curves if len(c["values"]) == len(c["layers"])]
    if not curves:
        return ""
    every = [x for c in curves for x in c["values"]]
    low, high = min(every), max(every)
    pad = max(0.05 * (high - low), 0.5)
    low, high = low - pad, high + pad
    names = max((c["layers"] for c in curves), key=len)

    def x(i: int, count: int) -> float:
        return LEFT + i / max(1, count - 1) * (WIDTH - LEFT - 20)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for k in range(4):
        value = low + k * (high - low) / 3
        parts.append(
            f'<path class="rule" d="M{LEFT} {y(value):.1f}H{WIDTH - 10}"/>'
            f'<text x="{LEFT - 5}" y="{y(value) + 3:.1f}" text-anchor="end">{value:.0f}</text>'
        )
    every_nth = -(-len(names) // 9)
    for i in range(0, len(names), every_nth):
        parts.append(
            f'<text x="{x(i, len(names)):.1f}" y="{HEIGHT - 12}" text-anchor="middle">'
            f"{esc(names[i])}</text>"
        )
    legend = []
    for n, found_curve in enumerate(curves):
        values, colour = found_curve["values"], f"var(--c{n % 6})"
        points = [f"{x(i, len(values)):.1f} {y(v):.1f}" for i, v in enumerate(values)]
        parts.append(
            f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        parts += [
            f'<circle cx="{p.split()[0]}" cy="{p.split()[1]}" r="2.6" fill="{colour}"/>'
            for p in points
        ]
        label = f"{found_curve['system']}, {found_curve['head']}"
        legend.append(f'<span style="color:{colour}">● {esc(label)}</span>')
    return (
        '<div class="card chart" style="margin-top:12px"><h4><span>development score of every layer'
        f"</span></h4><svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='score by layer'>"
        f"{''.join(parts)}</svg><p class=note>{' &nbsp; '.join(legend)}</p></div>"
    )
