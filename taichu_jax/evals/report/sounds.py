"""The report's section on codecs and vocoders."""

from __future__ import annotations

from typing import Any

from taichu_jax.evals.report.page import Media, esc


def sounds(name: str, result: dict[str, Any], media: Media) -> str:
    body = "".join(
        f"<tr><td>{esc(row['way'])}</td><td>{esc(row['form'])}</td><td>{_number(row['mel'], 3)}</td>"
        f"<td>{_number(row['decibels'], 2)}</td></tr>"
        for row in result["rows"]
    )
    bits = result["bits_per_second"]
    rate = f" All codes together are <b>{bits:,.0f}</b> bits a second." if bits else ""
    cards = "".join(
        f'<div class="card spec"><div class=top><span class=words>{esc(example["words"])}</span></div>'
        + "".join(
            f"<figure><figcaption>{esc(sound['way'])} {media.clip(name, sound['audio'])}"
            f"</figcaption>{media.picture(name, sound['picture'], sound['way'], 'pixels')}</figure>"
            for sound in example["sounds"]
        )
        + "</div>"
        for example in result["examples"]
    )
    return (
        f"<p>{result['recordings']:,} held-out recordings, made again from their log-mel spectrograms or "
        f"from codes of these.{rate} Log-mel distance: mean absolute difference of natural logarithms of "
        "power. Log-spectral distance: in dB, over 25 ms frames. Random phases and the mean spectrum of "
        "the recording itself are the simplest guesses.</p><div class='card scroll'><table><tr>"
        "<th>made by</th><th>judged as</th><th>log-mel distance</th><th>log-spectral distance</th></tr>"
        f"{body}</table></div><div class='grid specs'>{cards}</div>"
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
