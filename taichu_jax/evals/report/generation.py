"""The report's section on pictures and voices that were made from other modalities."""

from __future__ import annotations

from typing import Any

from taichu_jax.evals.report.page import Media, esc
from taichu_jax.evals.report.pieces import (
    LANGUAGES,
    PLURALS,
    SPLITS,
    arrow,
    icon,
    meter,
    spread,
    tag,
)

NOTES = {
    "test": "Nothing of these items was seen in training.",
    "test_recordings": "The pictures were seen in training, with voices and words of other languages; "
    "these recordings and their words were not.",
}
SHUFFLED = " shuffled"


def generation(name: str, result: dict[str, Any], media: Media) -> str:
    judge, sampling = result["judge"], result["sampling"]
    parts = [
        "<p>Pictures drawn and voices spoken from other modalities, code by code, by chance: "
        f"temperature {sampling['temperature']:g}"
        + (f", out of the {sampling['top_k']} likeliest codes" if sampling["top_k"] else "")
        + (f", top-p {sampling['top_p']:g}" if sampling["top_p"] < 1 else "")
        + f". Can one tell from them what they were made from? Another run, {esc(judge['name'])} at step "
        f"{judge['step']:,}, ranks all items of the same split and language by how well they fit; it "
        "hears the sound itself. R@k is the share of items that are among its first k, in percent, and "
        "the thin line a 95 % interval. The <span class='key'></span> mark is chance, computed exactly."
        "</p><p class=note>Real: the item’s own picture or recording, so what this judge can tell. As "
        "codes: that one through the tokeniser and back, all that a choice of codes can reach. Shuffled: "
        "what was made for another item of the same language, which must be at chance.</p>"
    ]
    for split, table in result["splits"].items():
        title = SPLITS.get(split, (split,))[0]
        parts.append(
            f"<h3>{esc(title)}</h3><p class=note>{esc(NOTES.get(split, ''))} {table['items']} items, "
            f"{table['things']} things, each among {spread(table['candidates'])} candidates.</p>"
        )
        for kind, targets in table["scores"].items():
            for place, (target, rows) in enumerate(targets.items()):
                body = f"<div class='card scroll'>{_scores(kind, target, rows)}</div>"
                if place:
                    label = f"{PLURALS[kind].capitalize()}, judged by {PLURALS[target]}"
                    body = f"<details><summary>{label}</summary>{body}</details>"
                parts.append(f'<div style="margin-top:14px">{body}</div>')
        parts.append(_variety(table))
        shown = [e for e in result["examples"] if e["split"] == split]
        cards = "".join(_card(name, example, media) for example in shown)
        if cards:
            parts.append(
                "<p class=note style='margin-top:14px'>Items at even distances, not chosen by their "
                f"results.</p><div class='grid gens'>{cards}</div>"
            )
    return "".join(parts)


def _scores(kind: str, target: str, rows: dict[str, Any]) -> str:
    chance = rows["chance"]
    columns = [key for key in chance if key.startswith("R@")]

    def line(source, row):
        made = source not in ("chance", "real", "tokeniser") and not source.endswith(SHUFFLED)
        known = source == "chance"  # exactly, so without an interval
        cells = "".join(
            f"<td>{meter(row[k], chance[k], None if known else row['interval'][k])}</td>"
            for k in columns
        )
        return (
            f'<tr class="{"" if made else "base"}"><td>{_source(kind, source)}</td>{cells}'
            f"<td>{row['median']:.3g} <span class=note>/ {chance['median']:.3g}</span></td></tr>"
        )

    head = "".join(f"<th>{esc(k)}</th>" for k in columns)
    body = "".join(line(source, row) for source, row in rows.items())
    return (
        f"<table><tr><th>{PLURALS[kind]} made from, judged by {PLURALS[target]}</th>{head}"
        f"<th>median rank / chance</th></tr>{body}</table>"
    )


def _source(kind: str, source: str) -> str:
    real = {"image": "the real picture", "audio": "the real recording"}[kind]
    fixed = {"chance": "chance", "real": real, "tokeniser": f"{real}, as codes"}
    if source in fixed:
        return fixed[source]
    return tag(source.removesuffix(SHUFFLED)) + (", shuffled" if source.endswith(SHUFFLED) else "")


def _variety(table: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{arrow(way)}</td><td>{_share(row['judge'])}</td><td>{_share(row['squared_error'])}"
        f"</td><td>{_percent(row['distinct_items'])}</td><td>{_percent(row['distinct_samples'])}</td>"
        f"<td>{_length(table['lengths'].get(way))}</td></tr>"
        for way, row in table["diversity"].items()
    )
    return (
        "<details><summary>How much they differ, and how long they are</summary><p class=note>The mean "
        "distance between samples of one input, divided by that between the real things of different "
        "items: 0 is always the same, 1 as if the input said nothing. Length: seconds of what was said "
        "over seconds of the recording.</p><div class='card scroll'><table><tr><th>made</th><th>distance "
        "to the judge</th><th>squared error</th><th>different codes, of items</th><th>of one input</th>"
        f"<th>length</th></tr>{rows}</table></div></details>"
    )


def _card(name: str, example: dict[str, Any], media: Media) -> str:
    language = esc(LANGUAGES.get(example["language"], example["language"]))
    strips = {"image": "", "audio": ""}
    for kind in strips:
        fixed = (("real", "real"), ("as codes", "tokeniser"))
        for label, key in fixed:
            if kind in example[key]:
                strips[kind] += _thing(name, kind, label, example[key][kind], media)
    for way, samples in example["made"].items():
        source, _, kind = way.partition("->")
        label = "from " + "+".join(icon(m) for m in source.split("+"))
        for thing in samples if kind == "image" else samples[:1]:
            strips[kind] += _thing(name, kind, label, thing, media)
    body = "".join(f"<div class='strip {kind}'>{strip}</div>" for kind, strip in strips.items())
    return (
        f"<div class='card gen'><div class=top><span class=words>{esc(example['text'])}</span>"
        f"<small>{language}</small></div>{body}</div>"
    )


def _thing(name: str, kind: str, label: str, thing: Any, media: Media) -> str:
    if kind == "image":
        content = media.picture(name, thing, "picture", "pixels")
    else:
        content = media.clip(name, thing["audio"])
        content += media.picture(name, thing["picture"], "spectrogram", "pixels")
    return f"<figure><figcaption class=tag>{label}</figcaption>{content}</figure>"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} %"


def _length(row: dict[str, float] | None) -> str:
    if row is None:
        return "–"
    silent = f", {row['silent']:.0f} % silent" if row["silent"] else ""
    return f"{row['ratio']:.2f} <span class=note>± {row['deviation']:.2f}{silent}</span>"
