"""report.html: everything a run has to show, in one file that needs nothing else.

Made from files alone (config.json, losses.jsonl, metrics.jsonl, evaluation/results.json and the media
beside it), so it can be made again without any computation. What a run does not have is not there.
"""

from __future__ import annotations

import collections
import json
import pathlib
from typing import Any

import numpy as np

from taichu_jax.errors import UserError
from taichu_jax.evals.evaluate import FOLDER, RESULTS
from taichu_jax.evals.recognition import GUESS
from taichu_jax.evals.report.curves import chart
from taichu_jax.evals.report.page import Media, esc, page
from taichu_jax.evals.report.sections import SECTIONS
from taichu_jax.training.files import write_whole
from taichu_jax.training.metrics import LOSSES, METRICS

NAME = "report.html"
MONITORS = ("feature_std", "perplexity", "accuracy", "logit_scale", "entropy", "usage", "variance")

COLLAPSED = 0.1  # a feature_std below it stands out


def write_report(run_dir: str | pathlib.Path) -> pathlib.Path:
    """Writes RUN/report.html and returns its path.

    Raises:
      UserError: the folder has no results.
    """
    run_dir = pathlib.Path(run_dir)
    folder = run_dir / FOLDER
    try:
        results = json.loads((folder / RESULTS).read_text("utf8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RESULTS}: cannot be read: {error}") from error
    media = Media(folder)
    sections: dict[str, list[str]] = collections.defaultdict(list)
    titles = {}
    order = list(dict.fromkeys(anchor for anchor, _, _ in SECTIONS.values()))
    for name, entry in results["evaluations"].items():
        if entry["kind"] in SECTIONS:
            anchor, titles[anchor], build = SECTIONS[entry["kind"]]
            sections[anchor].append(build(name, entry["result"], media))
    losses, metrics = _lines(run_dir / LOSSES), _lines(run_dir / METRICS)
    built = [(a, titles[a], "".join(sections[a])) for a in order if a in sections]
    built += [s for s in (_training(losses), _monitors(metrics)) if s[2]]
    facts = results["run"]
    head = _head(facts, results["evaluations"], metrics)
    text = page(f"{facts['name']} · report", built, head, media.sounds())
    write_whole(run_dir / NAME, text)
    return run_dir / NAME


def _head(facts: dict[str, Any], evaluations: dict[str, Any], metrics: list[dict]) -> str:
    total = sum(facts["parameters"].values())
    badges = "".join(
        '<span class="badge warn">the shipped sample: too small for numbers that mean much</span>'
        if data["kind"] == "sample"
        else f"<span class=badge>real data: {esc(data['name'])}</span>"
        for data in facts["data"]
    )
    rows = [
        ("step", f"{facts['step']:,} of {facts['steps']:,}"),
        ("parameters", f"{total / 1e6:.2f} million" if total >= 1e5 else f"{total:,}"),
        ("training time", _training_time(metrics)),
        ("evaluation time", _duration(sum(e["seconds"] for e in evaluations.values()))),
        ("evaluated on", f"{facts['device']}, {facts['cores']} cores"),
        ("evaluated at", facts["when"]),
    ]
    messages = (d["message"].removeprefix("data: ") for d in facts["data"])
    wide = [("data", "; ".join(messages)), ("command", facts["command"])]
    cells = "".join(f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in rows if v)
    cells += "".join(
        f"<div class=wide><dt>{esc(k)}</dt><dd>{'<code>' if k == 'command' else ''}{esc(v)}"
        f"{'</code>' if k == 'command' else ''}</dd></div>"
        for k, v in wide
        if v
    )
    names = ", ".join(facts["objectives"].values())
    return (
        f"<h1>{esc(facts['name'])}</h1><p class=lead>Trained with {esc(names)}.</p>{badges}"
        f"{_tiles(evaluations)}<dl class=facts>{cells}</dl>"
    )


def _tiles(evaluations: dict[str, Any]) -> str:
    """The numbers one wants to see first."""
    tiles = []
    directions = (
        ("audio->text", "voice → words"),
        ("image->text", "picture → words"),
        ("audio->image", "voice → picture"),
        ("text+audio->image", "words + voice → picture"),
    )
    for entry in evaluations.values():
        result = entry["result"]
        if entry["kind"] == "Retrieval" and "test" in result["splits"]:
            table = result["splits"]["test"]
            for key, label in directions:
                if key in table:
                    mean, chance = table[key]["mean"]["R@10"], table[key]["chance"]["R@10"]
                    note = f"<b>{label}</b>R@10 on held-out pictures, chance {chance:.1f}"
                    tiles.append((0, f"{mean:.1f}", "%", note))
        elif entry["kind"] == "SpeechRecognition" and "test" in result["splits"]:
            table = dict(result["splits"]["test"])
            guess = table.pop(GUESS)["overall"]["CER"]
            way = list(table)[-1]  # the last decoder, not the best on these recordings
            error = table[way]["overall"]["CER"]
            if error is not None:
                beside = f"held-out words, {GUESS} {guess:.1f}"
                note = f"<b>character error rate</b>{esc(way)}, {beside}"
                tiles.append((0, f"{error:.1f}", "%", note))
        elif entry["kind"] in ("CategoryProbe", "LanguageProbe"):
            best = max(row["linear"] for row in result["rows"] if row["kind"] == "layer")
            what = {"category": "category of a picture", "lang": "language of a voice"}
            label = what.get(result["task"], result["task"])
            chance = result["rows"][0]["linear"]
            note = f"<b>{esc(label)}</b>best linear probe, chance {chance:.1f}"
            tiles.append((1, f"{best:.1f}", "%", note))
    cards = "".join(
        f'<div class="card tile"><b>{number}<i> {unit}</i></b><small>{note}</small></div>'
        for _, number, unit, note in sorted(tiles, key=lambda tile: tile[0])
    )
    return f"<div class=tiles>{cards}</div>" if cards else ""


def _training(losses: list[dict]) -> tuple[str, str, str]:
    names = [n for n in _names(losses) if n == "loss" or n.endswith("/loss")]
    if len(names) == 2:  # one objective: its loss is the sum
        names.remove("loss")
    charts = _charts(losses, [*names, *(n for n in _names(losses) if n == "gradient_norm")])
    text = (
        "<p>The loss of every objective at every step: thin as it was, thick smoothed. The number is "
        "the smoothed value at the end.</p>"
    )
    return (
        "training",
        "Training",
        f"{text}<div class='grid charts'>{charts}</div>" if charts else "",
    )


def _monitors(metrics: list[dict]) -> tuple[str, str, str]:
    names = [n for key in MONITORS for n in _names(metrics) if key in n]
    names = list(dict.fromkeys(names))
    charts = _charts(metrics, names)
    text = (
        "<p>Is the model collapsing? <code>feature_std</code> is about 1 when embeddings spread evenly "
        "over the sphere and 0 when they are all the same (below 0.1 it stands out); "
        "perplexities count the codes in use; accuracies are those of the pretext tasks on training "
        "batches.</p>"
    )
    title = "Collapse monitors"
    return "monitors", title, f"{text}<div class='grid charts'>{charts}</div>" if charts else ""


def _charts(rows: list[dict], names: list[str]) -> str:
    result = []
    for name in names:
        points = [(r["step"], r[name]) for r in rows if isinstance(r.get(name), int | float)]
        if len(points) > 1:
            steps, values = np.array(points, np.float64).T
            warn = COLLAPSED if "feature_std" in name else -np.inf
            result.append(chart(name.removesuffix("/loss"), steps, values, warn))
    return "".join(result)


def _names(rows: list[dict]) -> list[str]:
    found = sorted({key for row in rows for key in row} - {"step", "time"})
    return sorted(found, key=lambda n: (n != "loss", n))


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text("utf8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # a line that is being written right now
            break
    return rows


def _training_time(metrics: list[dict]) -> str:
    """From the intervals' steps and rates: a pause between two starts does not count."""
    seconds, before = 0.0, 0
    for row in metrics:
        if row.get("rate"):
            seconds += (row["step"] - before) / row["rate"]
        before = row["step"]
    return _duration(seconds) if seconds else ""


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
