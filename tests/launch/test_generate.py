"""launch/generate.py with a tiny run: folders that are whole, pages that need nothing, clear refusals."""

import dataclasses
import importlib.util
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image

from taichu_jax.config import build, spec
from taichu_jax.data import audio, images
from taichu_jax.data.streams import Triplets
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.inference import generate, page
from taichu_jax.inference.decoding import GREEDY, Sampling, write_words
from taichu_jax.inference.generate import Generator, Options
from taichu_jax.inference.inputs import Given, read
from taichu_jax.inference.vocoder import griffin_lim
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.image_tokeniser import VQTokeniser
from taichu_jax.models.residual_quantiser import ResidualQuantiser
from taichu_jax.models.text import TextDecoder
from taichu_jax.objectives.multimodal.opt_audio_reconstruction import OPTAudioReconstruction
from taichu_jax.objectives.multimodal.opt_image_reconstruction import OPTImageReconstruction
from taichu_jax.ops.delay import step_count
from taichu_jax.ops.vocabulary import CLS
from taichu_jax.training.experiment import defaults
from taichu_jax.training.run import Run
from taichu_jax.training.state import init_params
from tests.conftest import ROOT
from tests.data.files import sound
from tests.evals import tiny

STREAM = Triplets(
    image_size=tiny.SIZE, text_length=tiny.LENGTH, seconds=tiny.FRAMES / 100, mel_bands=tiny.BANDS,
    trim=True, clean_mel=True,
)  # fmt: skip
STAGES, STRIDE = 2, 4
_DECODER = {"entries": 8, "width": 16, "depth": 1, "heads": 2}
NETWORKS = tiny.NETWORKS | {
    "image_tokeniser": spec(VQTokeniser, entries=8, dim=8, widths=(8, 8), blocks=1),
    "audio_tokeniser": spec(
        MelTokeniser,
        width=16,
        depth=1,
        stride=STRIDE,
        bands=tiny.BANDS,
        mel_mean=-8.0,
        causal=False,  # so that what is behind the end of a sound could be heard before it
        quantiser=spec(ResidualQuantiser, stages=STAGES, codes=8, dim=8),
    ),
    "image_code_decoder": spec(CodeDecoder, length=16, grid=(4, 4), **_DECODER),
    "audio_code_decoder": spec(
        CodeDecoder,
        length=step_count(tiny.FRAMES // STRIDE, STAGES, True),
        stages=STAGES,
        ends=True,
        **_DECODER,
    ),
}
OBJECTIVES = {
    "level": tiny.OBJECTIVES["level"],
    "drawing": spec(OPTImageReconstruction, source="things"),
    "speaking": spec(OPTAudioReconstruction, source="things"),
}
RNG = np.random.default_rng(0)
WAVE = (RNG.normal(size=8000) * 0.2).astype(np.float32)


def change(opened, **fields):
    return dataclasses.replace(opened, experiment=dataclasses.replace(opened.experiment, **fields))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("generate")


@pytest.fixture(scope="module")
def opened(folder):
    """A run with all three decoders and random weights, which nothing had to compile."""
    modules, objectives = build(NETWORKS), build(OBJECTIVES)
    batch = STREAM.fields()
    shapes = jax.eval_shape(
        lambda batch: init_params(modules, objectives, {"things": batch}, 0)[0], batch
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.asarray(0.4 * rng.normal(size=p.shape), p.dtype), shapes)
    config = defaults()
    config.name = "tiny"
    experiment = tiny.Experiment(modules, objectives, {"things": STREAM}, {})
    return tiny.Run(folder, config, experiment, tiny.ByteTokenizer(), params)


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


def only(run, *names):
    return change(run, objectives={name: run.experiment.objectives[name] for name in names})


RUNS = {
    "writer": lambda run: only(run, "level"),
    "drawer": lambda run: only(run, "drawing", "speaking"),
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
    "speaks": lambda run: change(
        run,
        networks=run.experiment.networks
        | {"audio_code_decoder": CodeDecoder(entries=8, length=10, languages=9)},
    ),
}


@pytest.fixture
def made(monkeypatch):
    """What the launcher was about to write."""
    seen, save = [], page.save

    def spy(folder, given, things, **more):
        seen.append(things)
        save(folder, given, things, **more)

    monkeypatch.setattr(page, "save", spy)
    return seen


def test_a_picture_a_voice_and_words_become_a_folder(
    launcher, opened, made, files, tmp_path, capsys
):
    out = tmp_path / "new" / "out"
    arguments = ["--run", "any", "--image", files["x_png"], "--audio", files["y_wav"]]
    wanted = ["--to", "text,image,audio", "--samples", "3", "--seed", "1"]
    launcher.run([*arguments, "--text", "a <b>", "--out", str(out), *wanted])
    (made,) = made
    pictures, sounds = [f"image_{i}.png" for i in range(3)], [f"audio_{i}.wav" for i in range(3)]
    assert sorted(p.name for p in out.iterdir()) == [*sounds, *pictures, "index.html", "text.txt"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]  # nothing half-written beside it

    texts = (out / "text.txt").read_text("utf8").splitlines()
    assert texts == [x.text for x in made.texts] and len(texts) == 3 and len(set(texts)) > 1

    def decoded(nets, pictures, sounds, frames):
        return (
            nets("image_tokeniser", pictures, method="decode"),
            nets("audio_tokeniser", sounds, frames, method="decode"),
        )

    # Of codes that are there only: rooms that are filled up must not be heard.
    counts = [len(x.codes) for x in made.sounds]
    assert min(counts) < max(counts) <= tiny.FRAMES // STRIDE
    codes = np.zeros((3, max(counts), STAGES), np.int32)
    for row, spoken in zip(codes, made.sounds, strict=True):
        row[: len(spoken.codes)] = spoken.codes
    grids = np.stack([x.codes for x in made.pictures])
    assert grids.shape == (3, 4, 4) and len(np.unique(grids, axis=0)) == 3
    pixels, mels = jitted(opened, decoded)(grids, codes, STRIDE * np.array(counts, np.int32))
    for name, drawn, want in zip(pictures, made.pictures, np.asarray(pixels), strict=True):
        with Image.open(out / name) as file:
            assert file.size == (tiny.SIZE, tiny.SIZE) and file.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(file), drawn.pixels)
        np.testing.assert_array_equal(drawn.pixels, np.round(want * 255))
    for name, spoken, want in zip(sounds, made.sounds, np.asarray(mels), strict=True):
        frames = STRIDE * len(spoken.codes)
        np.testing.assert_allclose(spoken.mel, want[:frames], atol=1e-4)
        wave, rate = soundfile.read(out / name, dtype="int16")
        assert rate == 16_000 and soundfile.info(out / name).subtype == "PCM_16"
        assert wave.shape == ((frames - 1) * audio.HOP,)
        np.testing.assert_array_equal(wave, np.round(spoken.wave * 32767))
        np.testing.assert_array_equal(spoken.wave, griffin_lim(spoken.mel))

    html = (out / "index.html").read_text("utf8")
    assert "data:image/webp;base64," in html and html.count('src="data:audio/mpeg;base64,') == 4
    assert html.count('class="pixels" src="data:image/png;base64,') == 6  # and spectrograms
    assert "<audio" in html and 'class="clip"' in html and "a &lt;b&gt;" in html
    assert "image_2.png, 16 × 16 pixels" in html and "audio_2.wav" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)  # needs no other file
    said = capsys.readouterr().out
    assert "of 0.50 s of sound the run reads the first 0.32 s" in said and "0.32 s" in html


def test_the_words_are_those_of_the_evaluation(opened, files):
    """Through the stream's own fields, the encoders and the plain greedy decoder."""
    given = Given(image=page.Path(files["x_png"]))
    generator = Generator(opened)
    texts = generator.make(given, Options()).texts
    encoders = opened.experiment.objectives["level"].encoders

    def plain(nets, batch):
        encoded = encoders.encode(nets, batch, modalities=("image",))
        memory = encoders.fuse(nets, encoded)
        return write_words(nets, "text_decoder", memory, np.array([[CLS]], np.int32), tiny.LENGTH)

    ids = jitted(opened, plain)(read(given, STREAM, opened.tokenizer).batch)
    want = " ".join(opened.tokenizer.decode(np.asarray(ids)[0]).split())
    assert [x.text for x in texts] == [want] and texts[0].log_p < 0
    # The beam is for the words; the picture beside them is drawn, whatever the number of samples.
    fields = {"kinds": ("text", "image"), "beams": 4, "alpha": 0.0, "seed": 2}
    best, alone = (generator.make(given, Options(samples=n, **fields)) for n in (2, 1))
    assert len(best.texts) == 2 and best.texts[0].log_p >= texts[0].log_p - 1e-4
    assert alone.texts == best.texts[:1] and best.sounds == ()
    np.testing.assert_array_equal(alone.pictures[0].codes, best.pictures[0].codes)
    assert (best.pictures[1].codes != best.pictures[0].codes).any()
    programs = len(generator._programs)
    generator.make(
        given, Options(samples=2, **fields | {"seed": 3, "top_k": 2, "temperature": 0.5})
    )
    assert len(generator._programs) == programs == 5  # fused, a text, a beam, a picture, two


def test_codes_are_drawn_and_one_text_is_not():
    greedy, drawn = Options(kinds=("text", "image")), Options(samples=2, top_p=0.5)
    assert greedy.sampling("text") == GREEDY and greedy.sampling("image") == Sampling(1.0, 32, 1.0)
    assert drawn.sampling("text") == Sampling(1.0, 0, 0.5)
    told = Options(kinds=("text", "audio"), temperature=0.7, top_k=5, top_p=0.9)
    assert {told.sampling(kind) for kind in told.kinds} == {Sampling(0.7, 5, 0.9)}


def test_a_sound_that_would_clip_is_made_quieter():
    mel = audio.log_mel(WAVE)
    (near, loud), notes = generate._unclipped([mel, mel + 2 * np.log(20)])
    np.testing.assert_array_equal(near, griffin_lim(mel))
    assert np.abs(griffin_lim(mel + 2 * np.log(20))).max() == 1  # that clips
    assert 0.5 < np.abs(loud).max() < 1
    assert notes == ["sound 1 would clip and is 24 dB quieter"]
    np.testing.assert_allclose(loud, near * 20 / 16, atol=1e-3)
    for broken in (np.nan, np.inf, 99.0):
        with pytest.raises(UserError, match="sound 0: its frames are not finite or far too loud"):
            generate._unclipped([np.full((4, 80), broken, np.float32)])


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
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "text,"], "--to : no such kind"),
        (["--run", "writer", "--out", "{new}", *IMAGE, "--to", "text,image"],
         "the run has no decoder for image; it can write: text"),
        (["--run", "drawer", "--out", "{new}", *IMAGE],
         "the run has no decoder for text; it can write: image, audio"),
        (["--run", "speaks", "--out", "{new}", *IMAGE, "--to", "image,audio"],
         "its decoder of audio must be told the language; set --language"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "audio", "--vocoder", "r"],
         "has no network 'vocoder'"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--vocoder", "r"], "--vocoder r: makes sound, whi"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "image", "--beams", "2"],
         "--beams 2: only for text"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "image", "--samples", "2",
          "--temperature", "0"], "at temperature 0 all are the same; set --temperature above 0$"),
        (["--run", "r", "--out", "{new}", *IMAGE, "--to", "image", "--top_k", "-1"], "top_k=-1"),
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
