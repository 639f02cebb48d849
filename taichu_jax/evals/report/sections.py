"""One section of the report for each kind of evaluation, from its results alone.

Every function takes (name of the evaluation, its result, media) and returns HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taichu_jax.evals.recognition import GUESS
from taichu_jax.evals.report.generation import generation
from taichu_jax.evals.report.page import Media, esc
from taichu_jax.evals.report.pieces import (
    LANGUAGES,
    SPLITS,
    WORDS,
    arrow,
    meter,
    presence,
    spread,
    tag,
)
from taichu_jax.evals.report.sounds import sounds
from taichu_jax.evals.report.synthesis import synthesis
from taichu_jax.evals.report.tokens import tokens

COUNTED = ("CER", "BLEU-1", "BLEU-4", "CIDEr")  # of captions; older results lack them


def retrieval(name: str, result: dict[str, Any], media: Media) -> str:
    parts = [
        "<p>For every query, all items of the split in the same language are ranked by similarity. "
        "An answer is right if it shows the same thing or has the same words. R@k is the share of "
        "queries with a right answer among the first k, in percent; ties count as random order. "
        'The <span class="key"></span> mark is chance, computed exactly.</p>'
    ]
    for split, table in result["splits"].items():
        title, text = SPLITS.get(split, (split, ""))
        parts.append(f"<h3>{esc(title)}</h3><p class=note>{esc(text)}</p>")
        parts.append(_retrieval_table(table))
        shown = [e for e in result["examples"] if e["split"] == split]
        by_direction: dict[str, list] = {}
        for example in shown:
            by_direction.setdefault(example["direction"], []).append(example)
        if shown:
            parts.append(
                "<p class=note>Examples: queries at a fixed stride through the split, not chosen "
                "by their results.</p>"
            )
        for number, (direction, examples) in enumerate(by_direction.items()):
            state = " open" if number < 3 else ""
            rows = "".join(_asked(name, example, media) for example in examples)
            parts.append(f"<details{state}><summary>{arrow(direction)}</summary>{rows}</details>")
    return "".join(parts)


def _retrieval_table(table: dict[str, Any]) -> str:
    strict = {k: v["own"] | {"candidates": v["candidates"]} for k, v in table.items()}
    names, rows = _by_language(table)
    return (
        f'<div class="card scroll">{_recalls(table)}</div>'
        "<details><summary>Stricter: only the item itself is right</summary>"
        f"<div class='card scroll'>{_recalls(strict)}</div></details>"
        f"<details><summary>By language: R@1 / R@10</summary><div class='card scroll'><table><tr>"
        f"<th>query → answer</th>{names}</tr>{rows}</table></div></details>"
    )


def _recalls(table: dict[str, Any]) -> str:
    def cells(row, chance):
        numbers = "".join(f"<td>{meter(row[k], chance[k])}</td>" for k in row if k.startswith("R@"))
        return f"{numbers}<td>{row['median']:.3g} <span class=note>/ {chance['median']:.3g}</span></td>"

    columns = [k for k in next(iter(table.values()))["mean"] if k.startswith("R@")]
    head = "".join(f"<th>{esc(k)}</th>" for k in columns)
    rows = "".join(
        f"<tr><td>{arrow(direction)}</td>{cells(entry['mean'], entry['chance'])}"
        f"<td>{spread(entry['candidates'].values())}</td></tr>"
        for direction, entry in table.items()
    )
    return (
        f"<table><tr><th>query → answer</th>{head}<th>median rank / chance</th><th>candidates</th>"
        f"</tr>{rows}</table>"
    )


def _by_language(table: dict[str, Any]) -> tuple[str, str]:
    languages = sorted({lang for entry in table.values() for lang in entry["languages"]})
    per_language = "".join(
        f"<tr><td>{arrow(direction)}</td>"
        + "".join(
            f"<td>{entry['languages'][x]['R@1']:.1f} <span class=note>/ "
            f"{entry['languages'][x]['R@10']:.1f}</span></td>"
            if x in entry["languages"]
            else "<td>–</td>"
            for x in languages
        )
        + "</tr>"
        for direction, entry in table.items()
    )
    names = "".join(f"<th>{esc(LANGUAGES.get(x, x))}</th>" for x in languages)
    return names, per_language


def _asked(name: str, example: dict[str, Any], media: Media) -> str:
    rank, late = example["rank"], ""
    if not any(item["right"] for item in example["found"]):
        late = (
            f'<div class="item late">{_card(name, example["answer"], media)}<div class=meta>'
            f"<b>right: {rank:.3g}</b></div></div>"
        )
    items = "".join(
        f'<div class="item{" right" if item["right"] else ""}">{_card(name, item, media)}'
        f"<div class=meta><b>{'✓ ' if item['right'] else ''}{place}</b><span>{item['score']:.2f}"
        f"</span></div></div>"
        for place, item in enumerate(example["found"], 1)
    )
    top = " top" if rank <= len(example["found"]) else ""
    return (
        f'<div class="card ask"><div class=q><span class=lang>'
        f"{esc(LANGUAGES.get(example['language'], example['language']))}</span>"
        f"{_card(name, example['query'], media)}<span class='rank{top}'>rank {rank:.3g} of "
        f"{example['candidates']}</span></div><div class=found>{items}{late}</div></div>"
    )


def captions(name: str, result: dict[str, Any], media: Media) -> str:
    parts = [
        "<p>Words decoded greedily from a picture, a voice, or both, in a given language. chrF "
        "(0 to 100, higher is better) compares letters with the words that belong to the item; the "
        "others ignore case and punctuation. BLEU (to 100) and CIDEr-D (to 1000) count runs of words; of "
        "sentences this short most have no four words in a row. “Another item” is what the "
        "words of a random other item of the same language would score: what knowing the language, "
        "but nothing about the item, can give.</p>"
    ]
    for split, table in result["splits"].items():
        title = SPLITS.get(split, (split,))[0]
        rows = "".join(
            f'<tr class="{"base" if source == "another item" else ""}"><td>'
            f"{esc(source) if source == 'another item' else tag(source)}</td><td>"
            f"{meter(entry['mean']['chrF'], table['another item']['mean']['chrF'])}</td>"
            f"<td>{entry['mean']['exact']:.1f} %</td><td>{entry['mean']['WER']:.0f} %</td>"
            + "".join(f"<td>{_plain_number(entry['mean'].get(k))}</td>" for k in COUNTED)
            + "</tr>"
            for source, entry in table.items()
        )
        counted = "".join(f"<th>{k}</th>" for k in COUNTED)
        parts.append(
            f"<h3>{esc(title)}</h3><div class='card scroll'><table><tr><th>written from</th><th>chrF"
            f"</th><th>exact</th><th>word errors</th>{counted}</tr>{rows}</table></div>"
        )
        shown = [e for e in result["examples"] if e["split"] == split]
        cards = "".join(_texts(name, example, media, _source) for example in shown)
        parts.append(f'<div class="grid caps" style="margin-top:14px">{cards}</div>')
    return "".join(parts)


def _plain_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _texts(
    name: str, example: dict[str, Any], media: Media, label: Callable[[str], str] = str
) -> str:
    """What was written for an example, below its reference; `label` turns a way to write into words."""
    written = "".join(
        f"<dt>{esc(label(way))}</dt>"
        f"<dd>{_same_words(example['reference'], text) or '<i>nothing</i>'}</dd>"
        for way, text in example["written"].items()
    )
    language = esc(LANGUAGES.get(example["language"], example["language"]))
    return (
        f'<div class="card cap"><div class=side>{_card(name, example, media)}</div><dl>'
        f"<dt>reference · {language}</dt><dd class=ref>{esc(example['reference'])}</dd>{written}"
        f"</dl></div>"
    )


def _source(subset: str) -> str:
    return "from " + " and ".join(WORDS[modality] for modality in subset.split("+"))


def recognition(name: str, result: dict[str, Any], media: Media) -> str:
    unknown = result["unknown_characters"]
    parts = [
        "<p>Words recognised in held-out recordings, without case and punctuation. Character and word "
        "error rates count substitutions, deletions and insertions, in percent of what was said; they "
        "can pass 100. The best constant guess is the transcript of each language, out of "
        f"{result['transcripts']:,} that were learnt from, that makes the fewest errors whatever is "
        f"said. Characters that the vocabulary lacks: {unknown:.2g} %.</p>"
    ]
    for split, table in result["splits"].items():
        title = SPLITS.get(split, (split,))[0]
        languages = sorted({x for entry in table.values() for x in entry["languages"]})
        names = "".join(f"<th>{esc(LANGUAGES.get(x, x))}</th>" for x in languages)
        rows = "".join(
            f'<tr class="{"base" if way == GUESS else ""}"><td>{esc(way)}</td>'
            + "".join(
                f"<td>{_errors(part)}</td>"
                for part in (entry["overall"], *(entry["languages"].get(x) for x in languages))
            )
            + "</tr>"
            for way, entry in table.items()
        )
        parts.append(
            f"<h3>{esc(title)}</h3><div class='card scroll'><table><tr><th>character errors "
            f"<span class=note>/ word errors</span></th><th>all</th>{names}</tr>{rows}</table></div>"
        )
        shown = [e for e in result["examples"] if e["split"] == split]
        cards = "".join(_texts(name, example, media) for example in shown)
        parts.append(f'<div class="grid caps" style="margin-top:14px">{cards}</div>')
    return "".join(parts)


def _errors(part: dict[str, Any] | None) -> str:
    if part is None or part["CER"] is None:
        return "–"
    return f"{part['CER']:.1f} <span class=note>/ {part['WER']:.0f}</span>"


def pictures(name: str, result: dict[str, Any], media: Media) -> str:
    given = ""
    if result.get("given"):
        given = (
            f" The objective predicts standardised patches: the {esc(result['given'])} come from "
            "the true picture, so colours and contrast are partly given; the structure within a "
            "patch is the model’s."
        )
    cards = "".join(
        '<div class="card rec">'
        + "".join(
            f"<figure><figcaption>{title}</figcaption>"
            f"{media.picture(name, example[key], title, 'pixels')}</figure>"
            for key, title in (("input", "input"), ("shown", "shown"), ("drawn", "drawn"))
        )
        + "</div>"
        for example in result["examples"]
    )
    return (
        f"<p>Held-out pictures with most patches hidden, and what the model draws there.{given} Mean "
        f"squared error of hidden pixels: <b>{_small(result['error'])}</b>, and "
        f"{_small(result['guess'])} for a flat guess.</p><div class='grid recs'>{cards}</div>"
    )


def spectrograms(name: str, result: dict[str, Any], media: Media) -> str:
    cards = "".join(
        f'<div class="card spec"><div class=top><span class=words>{esc(example["words"])}</span>'
        f"{media.clip(name, example['audio'])}</div>"
        + "".join(
            f"<figure><figcaption>{title}</figcaption>"
            f"{media.picture(name, example[key], title, 'pixels')}</figure>"
            for key, title in (("input", "input"), ("shown", "shown"), ("drawn", "drawn"))
        )
        + "</div>"
        for example in result["examples"]
    )
    return (
        f"<p>Log-mel spectrograms of held-out recordings with {100 * result['rate']:.0f} % of the "
        f"time hidden, filled in by the model with the words and the picture in view. Time runs to "
        f"the right, low frequencies are at the bottom. Mean squared error of hidden values: "
        f"<b>{_small(result['error'])}</b>, and {_small(result['guess'])} for the mean of what is "
        f"visible.</p><div class='grid specs'>{cards}</div>"
    )


def probe(name: str, result: dict[str, Any], media: Media) -> str:
    del media
    tasks = {
        "category": "The category of a picture, out of {classes}",
        "lang": "The language of a voice, out of {classes}",
    }
    title = tasks.get(result["task"], result["task"]).format(classes=result["classes"])
    text = ""
    if result["task"] == "lang":
        text = (
            " Each language has mostly one speaker, so this is also a question of who speaks; the "
            "raw baseline shows how much of it is the sound of the recording."
        )
    chance = result["rows"][0]["linear"]
    rows = "".join(
        f'<tr class="{"base" if row["kind"] == "baseline" else ""}"><td>{esc(row["features"])}</td>'
        f"<td>{meter(row['linear'], chance)}</td><td>{meter(row['knn'], chance)}</td></tr>"
        for row in result["rows"]
    )
    held = SPLITS.get(result["test_split"], (result["test_split"],))[0].lower()
    return (
        f"<h3>{esc(title)}</h3><p class=note>Accuracy in percent on {result['test']:,} items "
        f"({esc(held)}), learnt from {result['train']:,} training items on frozen features.{text}</p>"
        f"<div class='card scroll'><table><tr><th>features</th><th>linear probe</th><th>20 nearest "
        f"neighbours</th></tr>{rows}</table></div>"
    )


def subsets(name: str, result: dict[str, Any], media: Media) -> str:
    del name, media
    rows, chance = result["rows"], result["chance"]
    written = "chrF" in rows[0]
    body = "".join(
        f"<tr><td>{presence(row['subset'])}</td><td>{meter(row['accuracy'], chance['accuracy'])}"
        f"</td>"
        + (
            f"<td>{meter(row['chrF'], chance['chrF'])}</td><td>{row['WER']:.0f} %</td>"
            if written
            else ""
        )
        + "</tr>"
        for row in rows
    )
    last = f"<tr class=base><td>chance</td><td>{meter(chance['accuracy'], chance['accuracy'])}</td>"
    if written:
        last += f"<td>{meter(chance['chrF'], chance['chrF'])}</td><td>{chance['WER']:.0f} %</td>"
    head = "<th>words: chrF</th><th>word errors</th>" if written else ""
    return (
        f"<p>What the cross-modal encoder knows when it is given only some of the modalities. "
        f"Category: a linear probe on [CLS], learnt from {result['train']:,} training items and asked "
        f"about {result['test']:,} items of held-out pictures, {result['classes']} classes, beside the "
        f"commonest one. Words: decoded from the same states, beside those of another item.</p>"
        f"<div class='card scroll'><table><tr><th>present</th><th>category</th>{head}</tr>{body}{last}"
        f"</tr></table></div>"
    )


SECTIONS: dict[str, tuple[str, str, Callable[[str, dict, Media], str]]] = {
    "Retrieval": ("retrieval", "Retrieval", retrieval),
    "Captions": ("captions", "Captions", captions),
    "Generation": ("generation", "Pictures and voices made", generation),
    "ModalitySubsets": ("subsets", "Subsets of modalities", subsets),
    "SpeechRecognition": ("recognition", "Speech recognition", recognition),
    "PictureReconstructions": ("pictures", "Masked pictures", pictures),
    "PictureTokens": ("tokens", "Pictures as codes", tokens),
    "SpectrogramReconstructions": ("spectrograms", "Masked speech", spectrograms),
    "Resynthesis": ("sounds", "Sounds made again", sounds),
    "SpeechSynthesis": ("synthesis", "Words read aloud", synthesis),
    "CategoryProbe": ("probes", "Probes", probe),
    "LanguageProbe": ("probes", "Probes", probe),
}


def _card(name: str, card: dict[str, Any], media: Media) -> str:
    parts = []
    if "image" in card:
        parts.append(media.picture(name, card["image"], "picture", "pic"))
    if "audio" in card:
        parts.append(media.clip(name, card["audio"]))
    if "text" in card:
        parts.append(f"<span class=words>{esc(card['text'])}</span>")
    return "".join(parts)


def _same_words(reference: str, text: str) -> str:
    """The text, with those words marked that the reference has too."""
    said = set(_plain(reference).split())
    return " ".join(
        f"<span class=same>{esc(w)}</span>" if _plain(w).strip() in said and _plain(w) else esc(w)
        for w in text.split()
    )


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() else " " for c in text.casefold()).strip()
