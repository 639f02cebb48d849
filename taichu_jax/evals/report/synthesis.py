"""The report's section on words that are read aloud."""

from __future__ import annotations

from typing import Any

from taichu_jax.evals.report.page import Media, esc


def synthesis(name: str, result: dict[str, Any], media: Media) -> str:
    durations = result["durations"]
    body = "".join(
        f"<tr><td>{esc(row['way'])}</td><td>{_number(row['mel'], 3)}</td>"
        f"<td>{row['recordings']:,}</td></tr>"
        for row in result["rows"]
    )
    lengths = "".join(
        f"<tr><td>{what}</td><td>{_number(durations[key], digits)}</td>"
        f"<td>{_number(durations[f'{key}_guess'], digits)}</td></tr>"
        for what, key, digits in (
            ("a recording’s length, %", "length", 1),
            ("a symbol, frames of 10 ms", "symbol", 2),
        )
    )
    single = durations.get("single")  # older evaluations have none
    failed = "" if single is None else f" The alignment gives {single:.0f} % of symbols one frame."
    return (
        f"<p>The words of {result['recordings']:,} held-out recordings read aloud from the text alone. "
        "Log-mel distance: mean absolute difference of natural logarithms of power, after time warping, "
        "from the recording of the same words; another recording of the language says other words. "
        f"{result['cut']:,} did not fit into the longest sound that is made.</p>"
        "<div class='card scroll'><table><tr><th>made by</th><th>log-mel distance</th>"
        f"<th>recordings</th></tr>{body}</table></div>"
        "<p>Mean absolute error of predicted durations, beside the same number of frames for every "
        f"symbol ({durations['frames_per_symbol']:.1f}).{failed}</p><div class='card scroll'><table><tr>"
        f"<th>duration of</th><th>predicted</th><th>constant</th></tr>{lengths}</table></div>"
        f"{_errors(result)}<div class='grid specs'>"
        + "".join(_card(name, example, media) for example in result["examples"])
        + "</div>"
    )


def _errors(result: dict[str, Any]) -> str:
    if result["errors"] is None:
        return (
            "<p>No recogniser was given, so nobody has judged whether the words are understood.</p>"
        )
    rows = "".join(
        f"<tr><td>{esc(way)}</td><td>{_number(found['overall']['CER'], 1)}</td>"
        f"<td>{_number(found['overall']['WER'], 1)}</td></tr>"
        for way, found in result["errors"].items()
    )
    return (
        f"<p>What the recogniser {esc(result['recogniser'])} understands, in percent of errors; sounds "
        f"are made by {esc(result['sound'])}.</p><div class='card scroll'><table><tr><th>heard</th>"
        f"<th>character errors</th><th>word errors</th></tr>{rows}</table></div>"
    )


def _card(name: str, example: dict[str, Any], media: Media) -> str:
    sounds = "".join(
        f"<figure><figcaption>{esc(sound['way'])} {media.clip(name, sound['audio'])}</figcaption>"
        f"{media.picture(name, sound['picture'], sound['way'], 'pixels')}</figure>"
        for sound in example["sounds"]
    )
    alignments = "".join(
        f"<figure><figcaption>alignment, {esc(one['way'])}</figcaption>"
        f"{media.picture(name, one['picture'], one['way'], 'pixels')}</figure>"
        for one in example["alignments"]
    )
    return (
        f'<div class="card spec"><div class=top><span class=words>{esc(example["words"])}</span></div>'
        f"{sounds}{alignments}</div>"
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
