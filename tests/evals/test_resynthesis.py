"""Recordings made again by a codec and a vocoder: distances in closed form, a report to listen to."""

import dataclasses
import functools
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build, spec
from taichu_jax.data import audio
from taichu_jax.errors import UserError
from taichu_jax.evals import resynthesis
from taichu_jax.evals.resynthesis import GRIFFIN, MEAN, RANDOM, Resynthesis
from taichu_jax.evals.spectral_distance import (
    log_spectral_distance,
    mel_distance,
    wave_mel_distance,
)
from taichu_jax.evals.tables import tables
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.hifi_gan import HifiGanGenerator
from taichu_jax.models.residual_quantiser import ResidualQuantiser
from taichu_jax.training.experiment import defaults
from tests.evals import test_report, tiny

NETWORKS = {
    "speech": spec(
        MelTokeniser,
        width=8,
        depth=1,
        mel_mean=-8.0,
        quantiser=spec(ResidualQuantiser, stages=2, codes=16, dim=4),
    ),
    "vocoder": spec(
        HifiGanGenerator,
        channels=8,
        rates=(8, 5, 4),
        sizes=(16, 15, 8),
        block_sizes=(3,),
        dilations=((1,),),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voices(tiny.Things):
    """Recordings that are cut to a quarter of a second."""

    seconds: float = 0.25
    mel_bands: int = 80


@functools.cache
def params():
    modules = build(NETWORKS)
    mel, lengths = np.zeros((1, 8, 80), np.float32), np.array([8])

    def both(module):
        return module.decode(module.codes(mel, lengths))

    return jax.jit(
        lambda: {
            "speech": modules["speech"].init(jax.random.key(0), method=both)["params"],
            "vocoder": modules["vocoder"].init(jax.random.key(0), mel)["params"],
        }
    )()


@pytest.fixture
def run(tmp_path):
    config = defaults()
    config.name = "tiny"
    experiment = types.SimpleNamespace(networks=build(NETWORKS), compute_dtype=None)
    return types.SimpleNamespace(
        path=tmp_path, config=config, experiment=experiment, params=params(), tokenizer=None
    )


def noise(seed, level=0.1):
    return (level * np.random.default_rng(seed).normal(size=4000)).astype(np.float32)


def test_distances_of_a_louder_sound_are_its_gain():
    wave = noise(0)
    assert log_spectral_distance(wave, wave) == 0 == wave_mel_distance(wave, wave)
    louder = 2 * wave
    assert log_spectral_distance(louder, wave) == pytest.approx(20 * np.log10(2), rel=1e-3)
    assert wave_mel_distance(louder, wave) == pytest.approx(2 * np.log(2), rel=1e-3)
    assert log_spectral_distance(-wave, wave) == 0  # phases do not count
    a, b = np.zeros((3, 2)), np.array([[1, -3], [0, 0], [2, 0]])
    assert mel_distance(a, b) == 1


def test_log_spectral_distance_is_a_mean_of_root_mean_squares():
    one, other = noise(0), noise(1)
    decibels = []
    for wave in (one, other):
        padded, rows = np.pad(wave.astype(float), 200), []
        window = np.hanning(401)[:-1]
        for t in range(audio.frame_count(len(wave))):
            spectrum = np.fft.rfft(padded[t * 160 : t * 160 + 400] * window)
            rows.append(10 * np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-6)))
        decibels.append(rows)
    each = [np.sqrt(np.mean((x - y) ** 2)) for x, y in zip(*decibels, strict=True)]
    assert log_spectral_distance(one, other) == pytest.approx(np.mean(each), rel=1e-6)


def test_codec_and_vocoder_stand_beside_griffin_lim(run, tmp_path, monkeypatch):
    heard = []
    real = resynthesis.griffin_lim
    monkeypatch.setattr(
        resynthesis, "griffin_lim", lambda *a, **k: heard.append(a) or real(*a, **k)
    )
    evaluation = Resynthesis(
        stream=Voices(), codec="speech", vocoder="vocoder", limit=5, examples=2
    )
    folder = tmp_path / "evaluation" / "sounds"
    result = evaluation.run(run, folder)
    assert result["recordings"] == 5 and len(heard) == 10
    assert result["bits_per_second"] == 2 * 25 * 4
    rows = {row["way"]: row for row in result["rows"]}
    ways = [
        GRIFFIN,
        "vocoder",
        "2 of 2 codes, vocoder",
        RANDOM,
        "1 of 2 codes",
        "2 of 2 codes",
        MEAN,
    ]
    assert list(rows) == ways
    assert rows[GRIFFIN]["mel"] < rows[RANDOM]["mel"]
    assert rows[GRIFFIN]["decibels"] < rows[RANDOM]["decibels"]
    assert rows[MEAN]["mel"] < rows["1 of 2 codes"]["mel"]  # the codec is untrained
    stream = Voices(split="test")
    waves = [
        stream.source(None).wave(row, lang)[:4000].astype(np.float32) / 32767
        for row, lang in [stream.select(None)[i] for i in (0, 2, 5, 8, 11)]
    ]
    mels = [audio.log_mel(wave) for wave in waves]
    expected = np.mean([np.abs(mel - mel.mean(0)).mean() for mel in mels])
    assert rows[MEAN]["mel"] == pytest.approx(expected, rel=1e-5)
    expected = np.mean(
        [wave_mel_distance(w, real(m, 4000)) for w, m in zip(waves, mels, strict=True)]
    )
    assert rows[GRIFFIN]["mel"] == pytest.approx(expected, rel=1e-5)

    assert len(result["examples"]) == 2 and len(result["examples"][0]["sounds"]) == 5
    for sound in result["examples"][0]["sounds"]:
        assert (folder / sound["audio"]).is_file() and (folder / sound["picture"]).is_file()
    (table,) = tables("sounds", {"kind": "Resynthesis", "result": result})
    assert table.row_count == 7
    page = test_report.parsed(
        test_report.write(pathlib.Path(tmp_path), {"sounds": ("Resynthesis", result)})
    )
    text = " ".join(page.text)
    assert "Sounds made again" in text and "2 of 2 codes, vocoder" in text and "200" in text
    assert page.tags.count("audio") == 10


def test_without_a_vocoder_codes_are_heard_by_griffin_lim(run, tmp_path):
    evaluation = Resynthesis(stream=Voices(), codec="speech", limit=2, examples=1)
    rows = evaluation.run(run, tmp_path)["rows"]
    assert [row["way"] for row in rows][:3] == [GRIFFIN, "2 of 2 codes, Griffin-Lim", RANDOM]


def test_a_codec_decodes_as_alone(run):
    evaluation = Resynthesis(stream=Voices(), codec="speech")
    mels = [audio.log_mel(noise(i)[: 4000 - 700 * i]) for i in range(2)]
    decoded = evaluation._decoded(run, mels, 4000)
    module, weights = run.experiment.networks["speech"], {"params": run.params["speech"]}

    @jax.jit
    def alone(mel):
        lengths = jnp.full(1, mel.shape[1])
        codes = module.apply(weights, mel, lengths, method="codes")
        return module.apply(weights, codes, lengths, method="decode")[0, : mel.shape[1]]

    for mel, drawn in zip(mels, decoded["2 of 2 codes"], strict=True):
        np.testing.assert_allclose(drawn, alone(mel[None]), rtol=1e-3, atol=1e-3)


def test_nothing_to_evaluate_is_an_error(run, tmp_path):
    with pytest.raises(UserError, match="nothing to evaluate"):
        Resynthesis(stream=Voices()).run(run, tmp_path)
    with pytest.raises(UserError, match="codec='vocoder': no such MelTokeniser"):
        Resynthesis(stream=Voices(), codec="vocoder").run(run, tmp_path)
