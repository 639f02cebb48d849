"""The report's section on picture tokenisers."""

from __future__ import annotations

from typing import Any

from taichu_jax.evals.report.page import Media, esc


def tokens(name: str, result: dict[str, Any], media: Media) -> str:
    codes = result["codes"]
    body = "".join(
        f'<tr class="{"" if row["from"] == "codes" else "base"}"><td>{esc(row["from"])}</td>'
        f"<td>{row['PSNR']:.2f}</td><td>{row['SSIM']:.3f}</td><td>{row['error']:.3g}</td></tr>"
        for row in result["rows"]
    )
    cards = "".join(
        '<div class="card rec">'
        + "".join(
            f"<figure><figcaption>{title}</figcaption>"
            f"{media.picture(name, example[key], title, 'pixels')}</figure>"
            for key, title in (("input", "input"), ("drawn", "from its codes"))
        )
        + "</div>"
        for example in result["examples"]
    )
    return (
        f"<p>{result['pictures']:,} held-out pictures, each as {codes['per_picture']} codes out of "
        f"{codes['entries']:,}, and drawn again from them. They use <b>{codes['used']:,}</b> of the "
        f"codes, as many as {codes['perplexity']:.1f} used alike; the commonest has "
        f"{100 * codes['commonest_share']:.1f} % of all places. The baseline has the true mean colour of "
        f"every code’s place.</p><div class='card scroll'><table><tr><th>drawn from</th><th>PSNR, "
        f"dB</th><th>SSIM</th><th>squared error</th></tr>{body}</table></div>"
        f"<div class='grid recs'>{cards}</div>"
    )
