"""Sounds made from spectrograms: how near they come, how long they are, what silence becomes."""

import dataclasses
import pathlib
import types

import jax
import numpy as np
import pytest

from taichu_jax.data import audio
from taichu_jax.errors import UserError
from taichu_jax.inference.vocoder import NeuralVocoder, Statistics, griffin_lim, power_spectrum
from taichu_jax.models.hifi_gan import HifiGanGenerator
from taichu_jax.models.speech import SpeechEncoder

SAMPLES = 12_345


def voice(seed=0):
    """Harmonics of a gliding pitch under two formants, a pause, and a burst of noise."""
    rng, time = np.random.default_rng(seed), np.arange(SAMPLES) / audio.RATE
    pitch = 120 + 30 * np.sin(5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / audio.RATE
    x = np.zeros(SAMPLES)
    for k in range(1, 30):
        level = np.exp(-(((k * 120 - 600) / 300) ** 2)) + 0.4 * np.exp(
            -(((k * 120 - 1800) / 400) ** 2)
        )
        x += level * np.sin(k * phase)
    x *= 0.08
    x[5000:6000] = 0
    x[6000:7000] = 0.05 * rng.normal(size=1000)
    return (x + 0.002 * rng.normal(size=SAMPLES)).astype(np.float32)


def test_griffin_lim_comes_near_and_has_the_exact_length():
    wave = voice()
    mel = audio.log_mel(wave)
    made = griffin_lim(mel, SAMPLES)
    assert made.shape == (SAMPLES,) and made.dtype == np.float32
    assert np.isfinite(made).all() and np.abs(made).max() <= 1
    distance = np.abs(audio.log_mel(made) - mel).mean()
    random = np.abs(audio.log_mel(griffin_lim(mel, SAMPLES, iterations=0)) - mel).mean()
    assert distance < 0.25 and distance < 0.4 * random
    assert len(griffin_lim(mel)) == (len(mel) - 1) * audio.HOP
    np.testing.assert_array_equal(made, griffin_lim(mel, SAMPLES))


def test_the_power_spectrum_has_the_mel_bands_that_it_was_made_from():
    mel = audio.log_mel(voice(1))
    power = power_spectrum(mel)
    assert power.shape == (201, len(mel)) and power.min() >= 0
    again = np.asarray(audio._filters(80)[:, ::2] @ power)
    np.testing.assert_allclose(np.log(np.maximum(again, audio.FLOOR)).T, mel, atol=1.0)
    assert np.abs(np.log(np.maximum(again, audio.FLOOR)).T - mel).mean() < 0.02


def test_what_normalisation_removed_comes_back():
    wave = voice(2)
    mel = audio.log_mel(wave)
    statistics = Statistics.of(mel)
    normal = audio.normalise_mel(mel.copy())
    np.testing.assert_allclose(statistics.undo(normal), mel, atol=1e-4)
    made = griffin_lim(normal, statistics=statistics, iterations=0)  # more would amplify rounding
    np.testing.assert_allclose(made, griffin_lim(mel, iterations=0), atol=1e-3)


def test_silence_stays_silent():
    made = griffin_lim(audio.log_mel(np.zeros(4000, np.float32)), 4000)
    assert made.shape == (4000,) and np.abs(made).max() < 1e-6


def test_a_length_of_other_frames_is_refused():
    mel = audio.log_mel(voice())
    for wrong in (0, SAMPLES - 160, SAMPLES + 160):
        with pytest.raises(UserError, match="frames belong to 12320 to 12479 samples"):
            griffin_lim(mel, wrong)
    with pytest.raises(UserError, match="without frames"):
        griffin_lim(mel[:0])


@dataclasses.dataclass(frozen=True)
class Run:
    path: pathlib.Path
    experiment: types.SimpleNamespace
    params: dict


@pytest.fixture(scope="module")
def run():
    generator = HifiGanGenerator(
        channels=8,
        rates=(8, 5, 4),
        sizes=(16, 15, 8),
        block_sizes=(3,),
        dilations=((1,),),
        mel_mean=-8.0,
    )
    start = np.zeros((1, 3, 80), np.float32)
    params = jax.jit(generator.init)(jax.random.key(0), start)["params"]
    networks = {"vocoder": generator, "speech": SpeechEncoder()}
    return Run(
        pathlib.Path("runs/x"), types.SimpleNamespace(networks=networks), {"vocoder": params}
    )


def test_a_generator_s_sounds_have_their_lengths_and_do_not_know_each_other(run):
    vocoder = NeuralVocoder(run)
    waves = [voice(), voice()[:3211], voice()[:4000]]
    mels = [audio.log_mel(wave) for wave in waves]
    together = vocoder(mels, [len(wave) for wave in waves])
    assert [len(wave) for wave in together] == [len(wave) for wave in waves]
    assert all(np.abs(wave).max() <= 1 and np.abs(wave).max() > 0 for wave in together)
    alone = vocoder(mels[1:2])[0]
    assert len(alone) == (len(mels[1]) - 1) * audio.HOP
    np.testing.assert_allclose(together[1][: len(alone)], alone, rtol=1e-4, atol=1e-6)
    generator, params = run.experiment.networks["vocoder"], {"params": run.params["vocoder"]}
    apart = np.asarray(jax.jit(generator.apply)(params, mels[1][None]))[0]
    near = slice(0, len(apart) - 6 * audio.HOP)  # the end hears the frame that is repeated
    np.testing.assert_allclose(alone[near], apart[near], rtol=1e-4, atol=1e-6)


def test_a_network_that_makes_no_sound_is_refused(run):
    with pytest.raises(UserError, match="did you mean 'vocoder'"):
        NeuralVocoder(run, "vocodr")
    with pytest.raises(UserError, match="is a SpeechEncoder, which makes no sound"):
        NeuralVocoder(run, "speech")
