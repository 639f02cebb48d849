"""launch/generate.py with a tiny run: folders that are whole, pages that need nothing, clear refusals."""

import dataclasses
import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from taichu_jax.data import audio, images
from taichu_jax.data.streams import Triplets
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.inference import page
from taichu_jax.inference.decoding import write_words
from taichu_jax.inference.generate import Generator, Options
from taichu_jax.inference.inputs import Given, read
from taichu_jax.models.text import TextDecoder
from taichu_jax.ops.vocabulary import CLS
from taichu_jax.training.run import Run
from tests.conftest import ROOT
from tests.data.files import sound
from tests.evals import tiny

STREAM = Triplets(
    image_size=tiny.SIZE, text_length=tiny.LENGTH, seconds=tiny.FRAMES / 100, mel_bands=tiny.BANDS,
    trim=True,
)  # fmt: skip
RNG = np.random.default_rng(0)
WAVE = (RNG.normal(size=8000) * 0.2).astype(np.float32)


def change(opened, **fields):
    return dataclasses.replace(opened, experiment=dataclasses.replace(opened.experiment, **fields))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("generate")


@pytest.fixture(scope="module")
def opened(folder):
    return change(tiny.run(folder), streams={"things": STREAM})


@pytest.fixture(scope="module")
def files(folder):
    pixels = np.zeros((40, 30, 4), np.uint8)
    pixels[5:30, 5:20] = RNG.integers(0, 256, (25, 15, 4), np.uint8) | [0, 0, 0, 128]
    names = {name: folder / name for name in ("x.png", "y.wav", "cut.png", "empty.wav", "long.wav")}
    Image.fromarray(pixels).save(names["x.png"])
    names["cut.png"].write_bytes(names["x.png"].read_bytes()[:200])
    names["y.wav"].write_bytes(sound(WAVE))
    names["empty.wav"].write_bytes(sound(np.zeros(0)))
    hours = np.zeros(3 * 3600 * 1000, np.float32)
    names["long.wav"].write_bytes(sound(hours, 1000, subtype="PCM_U8"))
    return {name.replace(".", "_"): str(path) for name, path in names.items()}


@pytest.fixture
def launcher(monkeypatch, opened):
    """launch/generate.py, for which --run is always the tiny run, or none at all."""
    module_spec = importlib.util.spec_from_file_location("g", ROOT / "launch/generate.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)

    def open_run(path, step=None):
        return RUNS.get(path, lambda run: run)(opened)

    monkeypatch.setattr(Run, "open", open_run)
    return module


RUNS = {
    "unable": lambda run: change(run, objectives={}),
    "deaf": lambda run: change(
        run, streams={"things": dataclasses.replace(STREAM, modalities=("text", "image"))}
    ),
    "french": lambda run: change(
        run, streams={"things": dataclasses.replace(STREAM, languages=("fr", "ro"))}
    ),
    "told": lambda run: change(
        run,
        networks=run.experiment.networks
        | {"text_decoder": TextDecoder(vocab_size=tiny.VOCAB, length=tiny.LENGTH, languages=9)},
    ),
}


def test_a_picture_a_voice_and_words_become_a_folder(launcher, files, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    arguments = ["--run", "any", "--image", files["x_png"], "--audio", files["y_wav"]]
    launcher.run(
        [*arguments, "--text", "a <b>", "--out", str(out), "--samples", "3", "--seed", "1"]
    )
    assert sorted(p.name for p in out.iterdir()) == ["index.html", "text.txt"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]  # nothing half-written beside it
    texts = (out / "text.txt").read_text("utf8").splitlines()
    assert len(texts) == 3 and len(set(texts)) > 1
    html = (out / "index.html").read_text("utf8")
    assert "data:image/webp;base64," in html and "data:audio/mpeg;base64," in html
    assert "<audio" in html and 'class="clip"' in html and "a &lt;b&gt;" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)  # needs no other file
    said = capsys.readouterr().out
    assert "of 0.50 s of sound the run reads the first 0.32 s" in said and "0.32 s" in html


def test_the_words_are_those_of_the_evaluation(opened, files):
    """Through the stream's own fields, the encoders and the plain greedy decoder."""
    given = Given(image=files["x_png"] and page.Path(files["x_png"]))
    generator = Generator(opened)
    texts, row = generator.words(given, Options())
    encoders = opened.experiment.objectives["level"].encoders

    def plain(nets, batch):
        encoded = encoders.encode(nets, batch, modalities=("image",))
        memory = encoders.fuse(nets, encoded)
        return write_words(nets, "text_decoder", memory, np.array([[CLS]], np.int32), tiny.LENGTH)

    ids = jitted(opened, plain)(row.batch)
    want = " ".join(opened.tokenizer.decode(np.asarray(ids)[0]).split())
    assert [x.text for x in texts] == [want] and texts[0].log_p < 0
    best, _ = generator.words(given, Options(beams=4, samples=2, alpha=0.0))
    assert len(best) == 2 and best[0].log_p >= texts[0].log_p - 1e-4


def test_files_are_read_as_prepared_data_are(files):
    given = Given(
        text="ab", image=page.Path(files["x_png"]), audio=page.Path(files["y_wav"]), language="fr"
    )
    batch = read(given, STREAM, tiny.ByteTokenizer()).batch
    stored = images.encode_png(images.visible(images.decode(given.image)))
    canvas = images.canvas(images.decode(stored), tiny.SIZE * 3 // 2)
    np.testing.assert_array_equal(batch["image"][0], images.render(canvas, tiny.SIZE))
    wave = audio.decode(audio.encode_flac(audio.decode(given.audio)))
    wave = np.round(audio.trim_silence(wave) * 32767).astype(np.int16).astype(np.float32) / 32767
    mel = audio.normalise_mel(audio.log_mel(wave[: tiny.FRAMES * audio.HOP])[: tiny.FRAMES])
    np.testing.assert_allclose(batch["mel"][0], mel, atol=1e-4)
    assert batch["mel_lengths"][0] == tiny.FRAMES and batch["has_audio"].all()
    ids, mask = tiny.ByteTokenizer().encode("ab", tiny.LENGTH)
    np.testing.assert_array_equal(batch["text"][0], ids)
    np.testing.assert_array_equal(batch["text_mask"][0], mask)
    assert {k: v.dtype for k, v in batch.items()} == {
        k: s.dtype for k, s in STREAM.fields().items() if k in batch
    }


IMAGE = ["--image", "{x_png}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "o"], "--run DIR is needed"),
        (["--run", "r"], "--out DIR is needed"),
        (["--run", "r", "--imag", "x"], "did you mean '--image'"),
        (["--run", "r", "--out", "{new}"], "nothing to read: give --text, --image or --audio"),
        (["--run", "r", "--out", "{used}", *IMAGE], "used: exists already; name another folder"),
        (["--run", "r", "--out", "{new}", "--image", "/no.png"], "no.png: file cannot be read"),
        (["--run", "r", "--out", "{new}", "--image", "{cut_png}"], "picture is cut short"),
        (["--run", "r", "--out", "{new}", "--audio", "{empty_wav}"], "empty.wav: sound is empty"),
        (["--run", "r", "--out", "{new}", "--audio", "{long_wav}"], "3:00:00 of sound; at most 600"),
        (["--run", "r", "--out", "{new}", "--audio", "{x_png}"], "x.png: "),
        (["--run", "r", "--out", "{new}", "--image", "{y_wav}"], "picture cannot be decoded"),
        (["--run", "r", "--out", "{new}", "--text", "a" * 100_000],
         "--text: 100,000 characters are too long; the run reads 10 ids at most"),
        (["--run", "r", "--out", "{new}", "--text", "eleven ids."], "11 characters, 11 ids are too"),
        (["--run", "r", "--out", "{new}", "--text", " "], "--text: empty text"),
        (["--run", "r", "--out", "{new}", "--text="], "--text: empty text"),
        (["--run", "r", "--out", "{new}", "--text", "a\0b"], "--text: text with control"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "smell"], "--to smell: no such kind"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "text,image"],
         "the run has no decoder for image; it can write: text"),
        (["--run", "unable", "--out", "{new}", *IMAGE], "has no decoder, so it can write nothing"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--language", "xx"], "unknown language 'xx'"),
        (["--run", "french", "--out", "{new}", *IMAGE, "--language", "de"],
         "--language de: .* was trained on fr, ro"),
        (["--run", "told", "--out", "{new}", *IMAGE], "must be told the language; set --language"),
        (["--run", "deaf", "--out", "{new}", "--audio", "{y_wav}"],
         "reads no audio; it reads: text, image"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--samples", "0"], "--samples 0: must be from 1"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--samples", "2", "--temperature", "0"],
         "at temperature 0 all are the same"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--temperature", "hot"], "must be a number"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--top_p", "0"], "top_p=0.0: must be above 0"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--beams", "3", "--samples", "4"], "has no more"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--beams", "3", "--temperature", "1"], "exclude"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--seed", "-1"], "--seed -1: must be from 0"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_and_leaves_nothing(launcher, files, tmp_path, arguments, message):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    places = files | {"new": str(tmp_path / "new"), "used": str(tmp_path / "used")}
    with pytest.raises(UserError, match=message):
        launcher.run([a.format(**places) for a in arguments])
    assert [p.name for p in tmp_path.iterdir()] == ["used"]


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), page.new_folder(tmp_path / "out") as partial:
        (partial / "text.txt").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), page.new_folder(tmp_path / "file/x"):
        pass
    (tmp_path / "empty").mkdir()
    with page.new_folder(tmp_path / "empty") as partial:
        (partial / "text.txt").write_text("whole")
    assert (tmp_path / "empty/text.txt").read_text() == "whole"


def test_errors_end_with_two():
    command = [sys.executable, str(ROOT / "launch/generate.py"), "--run", "/no", "--out", "/no/x",
               "--text", "a"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: /no: ")
    assert done.stderr.count("\n") == 1
