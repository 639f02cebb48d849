"""Words read aloud: distances and durations by hand, a listener, the report."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build, spec
from taichu_jax.data.audio import log_mel
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.errors import UserError
from taichu_jax.evals import speech_synthesis
from taichu_jax.evals.listener import Listener
from taichu_jax.evals.speech_synthesis import (
    ANOTHER,
    PROSODY,
    RECORDING,
    SYNTHESISED,
    SpeechSynthesis,
)
from taichu_jax.evals.tables import tables
from taichu_jax.evals.warping import warped_mel_distance
from taichu_jax.models.aligner import Aligner
from taichu_jax.models.fast_speech import FastSpeech
from taichu_jax.objectives.speech.ctc import CTC
from taichu_jax.objectives.speech.fast_speech2 import FastSpeech2
from taichu_jax.training.experiment import defaults
from taichu_jax.training.state import init_params
from tests.evals import test_report, tiny

BANDS, SAMPLES = 16, 5440  # 0.34 s; the recordings have 5000 samples
NETWORKS = {
    "speech": spec(
        FastSpeech,
        vocab_size=tiny.VOCAB,
        width=8,
        encoder_depth=1,
        decoder_depth=1,
        hidden=8,
        sizes=(3, 1),
        dropout=0.0,
        predictor_width=8,
        predictor_layers=1,
        post_layers=0,
        bands=BANDS,
        mel_mean=-8.0,
    ),
    "aligner": spec(Aligner, width=8),
}
OBJECTIVE = FastSpeech2(source="voices", bands=BANDS, told=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voices(tiny.Things):
    """Words and samples; the first thing's words are left out, as they would not fit."""

    seconds: float = SAMPLES / 16_000

    def _rows(self, source, rows, tokenizer):
        batch = super()._rows(source, rows, tokenizer)
        waves = [source.wave(row, lang).astype(np.float32) / 32767 for _, (row, lang) in rows]
        sizes = [
            SAMPLES if row == 0 else len(w) for w, (_, (row, _)) in zip(waves, rows, strict=True)
        ]
        batch["audio"] = [np.pad(wave, (0, SAMPLES - len(wave))) for wave in waves]
        batch["audio_lengths"] = [np.int32(size) for size in sizes]
        return {k: v for k, v in batch.items() if not k.startswith(("mel", "image"))}


@functools.cache
def params():
    modules, stream = build(NETWORKS), Voices()
    batch = {k: jnp.asarray(v) for k, v in next(stream.epoch(None, ByteTokenizer())).items()}
    del batch["valid"]
    init = jax.jit(lambda: init_params(modules, {"tts": OBJECTIVE}, {"voices": batch}, 0)[0])
    return modules, init()


@pytest.fixture
def run(tmp_path):
    config = defaults()
    config.name = "tiny"
    modules, weights = params()
    experiment = types.SimpleNamespace(
        networks=modules,
        objectives={"tts": OBJECTIVE},
        streams={"voices": Voices()},
        compute_dtype=None,
    )
    return types.SimpleNamespace(
        path=tmp_path,
        config=config,
        experiment=experiment,
        params=weights,
        tokenizer=ByteTokenizer(),
    )


def noise(mel):
    """A sound of the right length, another one for every spectrogram."""
    rng = np.random.default_rng(int(1000 * np.abs(mel).sum()))
    return 0.1 * rng.normal(size=len(mel) * 160 - 159)


def test_warping_undoes_another_tempo_and_nothing_else():
    mel = np.random.default_rng(0).normal(size=(6, 4))
    slower = np.repeat(mel, [1, 3, 1, 2, 1, 1], axis=0)
    assert warped_mel_distance(mel, slower) == 0 == warped_mel_distance(slower, mel)
    assert warped_mel_distance(mel, slower + 0.25) == pytest.approx(0.25, abs=0.1)
    assert warped_mel_distance(np.zeros((2, 3)), np.full((2, 3), 0.5)) == 0.5
    one, other = mel[:4], mel[2:]
    cost = np.abs(one[:, None] - other[None]).sum(-1)

    @functools.cache
    def least(i, j):  # (cost, - length): the cheapest path
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        reached = [least(*place) for place in before if min(place) >= 0]
        total, length = min(reached) if reached else (0.0, 0)
        return total + cost[i, j], length + 1

    total, length = least(3, 3)
    assert warped_mel_distance(one, other) == pytest.approx(total / length / 4)


def test_words_are_read_aloud_and_judged(run, tmp_path, monkeypatch):
    heard = []

    class Heard:
        def __init__(self, other):
            assert other == "recogniser"

        def __call__(self, waves):
            heard.append(waves)
            return ["fr 1"] * len(waves)

    monkeypatch.setattr(speech_synthesis, "Listener", Heard)
    monkeypatch.setattr(speech_synthesis.Run, "open", lambda folder: folder)
    monkeypatch.setattr(speech_synthesis, "griffin_lim", noise)
    evaluation = SpeechSynthesis(objective="tts", limit=8, examples=2, recogniser="recogniser")
    folder = tmp_path / "evaluation" / "read"
    result = evaluation.run(run, folder)
    # Every other thing in two languages, without the two whose sound may have been cut.
    stream = Voices(split="test")
    examples = stream.select(None)
    chosen = [examples[i] for i in np.linspace(0, len(examples) - 1, 8).astype(int)]
    chosen = [example for example in chosen if example[0]]
    assert result["recordings"] == len(chosen) and result["split"] == "test"
    rows = {row["way"]: row for row in result["rows"]}
    assert list(rows) == [SYNTHESISED, PROSODY, ANOTHER]
    source = stream.source(None)
    mels = [log_mel(source.wave(*c).astype(np.float32) / 32767, BANDS) for c in chosen]
    distances = []
    for i, (_, language) in enumerate(chosen):
        same = [j for j, other in enumerate(chosen) if other[1] == language]
        distances.append(warped_mel_distance(mels[i], mels[same[(same.index(i) + 1) % len(same)]]))
    assert rows[ANOTHER]["mel"] == pytest.approx(np.mean(distances), rel=1e-4)
    assert rows[SYNTHESISED]["mel"] > 0.1 and rows[PROSODY]["mel"] > 0.1

    durations = result["durations"]
    assert durations["frames_per_symbol"] == pytest.approx(32 / 6)  # [CLS], four bytes and [SEP]
    assert durations["length_guess"] == pytest.approx(0, abs=1e-4)  # all are equally long here
    assert durations["length"] > 0 and durations["symbol"] > 0
    assert 0 <= durations["single"] <= 100

    assert [len(waves) for waves in heard] == [len(chosen)] * 4
    errors = result["errors"]
    assert next(iter(errors)) == RECORDING and SYNTHESISED in errors
    wrong = sum(2 * (lang == "ro") + (row != 1) for row, lang in chosen)
    assert errors[SYNTHESISED]["overall"]["CER"] == pytest.approx(100 * wrong / 4 / len(chosen))

    for example in result["examples"]:
        assert len(example["sounds"]) == 3 and len(example["alignments"]) == 2
        for one in (*example["sounds"], *example["alignments"]):
            assert (folder / one["picture"]).is_file()
    (table,) = tables("read", {"kind": "SpeechSynthesis", "result": result})
    assert table.row_count == 3
    page = test_report.parsed(test_report.write(tmp_path, {"read": ("SpeechSynthesis", result)}))
    text = " ".join(page.text)
    assert f"The alignment gives {durations['single']:.0f} % of symbols one frame." in text
    assert "Words read aloud" in text and "character errors" in text and "likeliest" in text
    assert page.tags.count("audio") == 6

    quiet = SpeechSynthesis(objective="tts", limit=3, examples=1).run(run, folder)
    assert quiet["errors"] is None and len(quiet["examples"]) == 1
    page = test_report.parsed(test_report.write(tmp_path, {"read": ("SpeechSynthesis", quiet)}))
    assert "No recogniser was given" in " ".join(page.text)


def test_durations_by_hand():
    rows = [([1, 1, 1, 9], [2, 3, 2, 3]), ([4], [6])]
    said = [{"durations": np.array(a), "made": {"durations": np.array(b)}} for a, b in rows]
    found = speech_synthesis._durations(said)
    mean = 16 / 5
    assert found == pytest.approx(
        {
            "length": 100 * (2 / 12 + 2 / 4) / 2,
            "length_guess": 100 * ((4 * mean - 12) / 12 + (4 - mean) / 4) / 2,
            "symbol": (1 + 2 + 1 + 6 + 2) / 5,
            "symbol_guess": (3 * (mean - 1) + (9 - mean) + (4 - mean)) / 5,
            "frames_per_symbol": mean,
            "single": 60.0,
        }
    )


class Counts(CTC):
    """Writes how many frames there are, as a letter, and the sign of the first one's first band."""

    def log_probabilities(self, nets, batch):
        letter = 6 + batch["mel_lengths"] + 64
        loud = jnp.where(batch["mel"][:, 0, 0] > 0, 6 + ord("+"), 6 + ord("-"))
        path = jnp.stack([letter, letter, jnp.zeros_like(letter), loud, letter], axis=1)
        return jnp.log(jax.nn.one_hot(path, tiny.VOCAB) + 1e-9), jnp.full(len(path), 4)


def test_a_listener_hears_what_its_streams_would_give():
    stream = Triplets(batch_size=4, modalities=("text", "audio"), seconds=0.1, normalise=False)
    experiment = types.SimpleNamespace(
        networks={},
        objectives={"ctc": Counts(source="voices")},
        streams={"voices": stream},
        compute_dtype=None,
    )
    run = types.SimpleNamespace(
        path="runs/ears", experiment=experiment, params={}, tokenizer=ByteTokenizer()
    )
    quiet, loud = 1e-4, 1e3
    sizes = [160 * n + 1 for n in (1, 2, 3, 4, 5, 6, 7, 8, 30)]
    waves = [np.full(size, loud if n % 2 else quiet, np.float32) for n, size in enumerate(sizes)]
    expected = [chr(64 + min(2 + n, 10)) + "-+"[n % 2] for n in range(len(sizes))]
    assert Listener(run)(waves) == expected
    experiment.objectives = {"tts": OBJECTIVE}
    with pytest.raises(UserError, match=r"runs/ears.*it needs CTC, not FastSpeech2"):
        Listener(run)


def test_what_cannot_be_evaluated_is_named(run, tmp_path):
    with pytest.raises(UserError, match="objective='speech': no such objective"):
        SpeechSynthesis(objective="speech").run(run, tmp_path)
    run.experiment.objectives = {"tts": Counts(source="voices")}
    with pytest.raises(UserError, match="Counts synthesises no speech"):
        SpeechSynthesis(objective="tts").run(run, tmp_path)
