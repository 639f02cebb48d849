"""The report: made from files, well-formed, with everything that has data and nothing from outside."""

import html.parser
import json
import re

import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.evals.evaluate import FOLDER, RESULTS
from taichu_jax.evals.media import Folder
from taichu_jax.evals.report import write_report
from taichu_jax.evals.report.curves import chart

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Parser(html.parser.HTMLParser):
    """Checks that every tag is closed in order, and collects what the page shows and loads."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.sources += [values[k] for k in ("src", "href") if k in values]
        if tag not in VOID and tag not in ("path", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def parsed(path):
    parser = Parser()
    parser.feed(path.read_text("utf8"))
    assert [tag for tag in parser.open if tag not in ("p",)] == []
    return parser


def write(tmp_path, evaluations, sample=False):
    folder = tmp_path / FOLDER
    folder.mkdir(exist_ok=True)
    kind = "sample" if sample else "package"
    facts = {
        "name": "a <run>",
        "step": 40,
        "steps": 40,
        "data": [{"name": "things", "kind": kind, "message": f"data: some things ({kind})"}],
        "parameters": {"image": 1234},
        "objectives": {"mae": "MaskedAutoencoder"},
        "device": "cpu (of a test)",
        "cores": 2,
        "command": "python launch/evaluate.py --run X",
        "when": "2026-01-01 00:00 UTC",
    }
    entries = {
        name: {"kind": kind, "step": 40, "seconds": 1.0, "result": result}
        for name, (kind, result) in evaluations.items()
    }
    (folder / RESULTS).write_text(json.dumps({"run": facts, "evaluations": entries}))
    rows = [{"step": i, "loss": 3 - i / 40, "mae/loss": 3 - i / 40} for i in range(40)]
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"st')
    rows = [{"step": i, "time": 0, "rate": 2.0, "mae/feature_std": 0.9} for i in (20, 40)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return write_report(tmp_path)


def everything(tmp_path):
    numbers = {"R@1": 5.0, "R@5": 20.0, "R@10": 40.0, "median": 14.0, "mean": 20.0}

    def media(name):
        folder = Folder(tmp_path / FOLDER / name)
        picture = folder.picture(np.zeros((8, 8, 3)))
        return picture, folder.clip(0.1 * np.sin(np.arange(4000) / 5)), folder

    picture, clip, _ = media("retrieval")
    found = [
        {"text": "un <chat>", "score": 0.5, "right": False},
        {"text": "un chien", "score": 0.4, "right": True},
    ]
    entry = {"mean": numbers, "chance": numbers, "languages": {"fr": numbers}}
    entry |= {"own": dict(entry), "candidates": {"fr": 80}}
    example = {
        "direction": "image+audio->text",
        "language": "fr",
        "candidates": 80,
        "rank": 2.0,
        "query": {"image": picture, "audio": clip},
        "answer": {"text": "un chien"},
        "found": found,
    }
    retrieval = {
        "splits": {s: {"image+audio->text": entry} for s in ("test", "test_recordings")},
        "examples": [example | {"split": s} for s in ("test", "test_recordings")],
    }
    picture, clip, _ = media("captions")
    scores = {"mean": {"chrF": 30.0, "exact": 1.0, "WER": 80.0}}
    caption = {
        "split": "test",
        "language": "fr",
        "image": picture,
        "audio": clip,
        "reference": "Un chien noir",
        "written": {"image": "un chien", "audio": ""},
    }
    captions = {
        "splits": {"test": {"image": scores, "another item": scores}},
        "examples": [caption],
    }
    picture, _, _ = media("pictures")
    shown = {"input": picture, "shown": picture, "drawn": picture}
    pictures = {"error": 0.1, "guess": None, "given": "", "examples": [shown]}
    _, clip, folder = media("spectrograms")
    mel = folder.spectrogram(np.random.default_rng(0).normal(size=(20, 8)), -1.0, 1.0)
    shown = {"words": "un", "audio": clip, "input": mel, "shown": mel, "drawn": mel}
    speech = {"error": 0.1, "guess": 0.2, "rate": 0.3, "examples": [shown]}
    row = {"features": "block 1", "kind": "layer", "linear": 50.0, "knn": 40.0}
    probe = {"train": 9, "test": 5, "test_split": "test", "classes": 3}
    probe |= {"rows": [row | {"kind": "baseline"}, row]}
    line = {"subset": "text+audio", "accuracy": 40.0, "chrF": 20.0, "WER": 90.0, "exact": 0.0}
    subsets = {"rows": [line], "chance": line, "train": 9, "test": 5, "classes": 3}
    cers = {"greedy": 51.63, "beam": 57.12, "best constant guess": 80.5}
    counts = {"WER": 90.0, "recordings": 4}
    ways = {k: {"overall": counts | {"CER": v}, "languages": {}} for k, v in cers.items()}
    recognition = {
        "splits": {"test": ways},
        "unknown_characters": 0.0,
        "transcripts": 9,
        "examples": [],
    }
    return {
        "recognition": ("SpeechRecognition", recognition),
        "retrieval": ("Retrieval", retrieval),
        "captions": ("Captions", captions),
        "pictures": ("PictureReconstructions", pictures),
        "spectrograms": ("SpectrogramReconstructions", speech),
        "category": ("CategoryProbe", probe | {"task": "category"}),
        "language": ("LanguageProbe", probe | {"task": "lang"}),
        "subsets": ("ModalitySubsets", subsets),
    }


def test_every_section_is_there_and_nothing_comes_from_outside(tmp_path):
    path = write(tmp_path, everything(tmp_path))
    page = parsed(path)
    text = " ".join(page.text)
    for title in (
        "Retrieval",
        "Held-out pictures",
        "Held-out recordings",
        "Captions",
        "Speech recognition",
        "Subsets of modalities",
        "Masked pictures",
        "Masked speech",
        "The category of a picture",
        "The language of a voice",
        "Training",
        "Collapse monitors",
    ):
        assert title in text, title
    assert "un <chat>" in text and "a <run>" in text  # escaped in the file, whole in the page
    assert "un <chat>" not in path.read_text("utf8")
    assert "some things" in text and "launch/evaluate.py --run X" in text
    assert all(s.startswith(("data:", "#")) for s in page.sources)
    assert not re.search(r"https?://|@import|url\(", path.read_text("utf8"))
    assert page.tags.count("audio") == 3  # one of each evaluation, though shown more often
    assert "sample" not in text


def test_missing_parts_are_not_there_and_the_sample_is_named(tmp_path):
    some = {"category": everything(tmp_path)["category"]}
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    text = " ".join(parsed(write(tmp_path, some, sample=True)).text)
    assert "Probes" in text and "the shipped sample" in text
    for title in ("Retrieval", "Masked pictures", "Masked speech", "Captions", "Subsets"):
        assert title not in text, title


def test_a_recogniser_begins_with_its_last_decoder(tmp_path):
    some = {"recognition": everything(tmp_path)["recognition"]}
    text = write(tmp_path, some).read_text("utf8")
    tile = re.search(r'<div class="card tile">.*?</div>', text)
    assert tile is not None
    assert "57.1" in tile[0] and "beam, held-out words" in tile[0] and "80.5" in tile[0]


def test_no_results_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"results\.json"):
        write_report(tmp_path)


def test_chart_survives_constants_gaps_and_many_points():
    steps = np.arange(5000.0)
    values = np.exp(-steps / 1000)
    values[7] = np.nan
    drawn = chart("a < b", steps, values)
    assert "a &lt; b" in drawn and len(drawn) < 20_000 and "nan" not in drawn
    assert "nan" not in chart("constant", steps, np.zeros(5000))
    assert "nan" not in chart("constant", steps, np.full(5000, 1e-9))
    assert chart("nothing", steps, np.full(5000, np.nan)) == ""
