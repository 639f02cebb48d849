"""FastSpeech 2's loss against loops over rows, frames and symbols; what is heard against NumPy."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build
from taichu_jax.data import audio
from taichu_jax.errors import UserError
from taichu_jax.objectives.speech.fast_speech2 import FastSpeech2
from taichu_jax.ops.schedules import Linear
from taichu_jax.training.nets import BoundNets
from tests import case as cases
from tests.fakes import FakeNets

WEIGHTS = {
    "mel": 0.7,
    "refined": 0.6,
    "duration": 0.5,
    "pitch": 0.4,
    "energy": 0.3,
    "forward_sum": 0.2,
    "binarisation": Linear(start=0.0, end=1.0, steps=10),
}
OBJECTIVE = dataclasses.replace(
    build(cases.load("fast_speech2").objective),
    energy_mean=1.0,
    energy_deviation=2.0,
    pitch_mean=4.0,
    pitch_deviation=0.5,
    **WEIGHTS,
)
USED = [5, 6, 7]


@functools.cache
def batch():
    """Eight rows, of which five do not count, each for another reason."""
    fields = {k: v.copy() for k, v in cases.load("fast_speech2").batch.items()}
    places, samples = fields["text"].shape[1], fields["audio"].shape[1]
    symbols = np.array([9, places, 5, 5, 0, 4, 6, 7])
    lengths = np.array([800, 1590, samples, 0, 1200, 1000, 1599, 1080])  # 6, 10, 11, 0, 8, 7, 10, 7
    time = np.arange(samples) / 16_000
    fields["audio"][6] = np.sin(2 * np.pi * 200 * time)  # a voiced row
    fields["text_mask"] = np.arange(places) < symbols[:, None]
    fields["audio_lengths"] = lengths.astype(np.int32)
    return fields


@functools.cache
def computed():
    modules, _, params, _, _ = cases.built("fast_speech2")
    fields = {k: jnp.asarray(v) for k, v in batch().items()}

    def loss(samples):
        own = fields | {"audio": samples}
        nets = BoundNets(modules, params, step=3)
        heard = OBJECTIVE.hear(own)
        aligned = OBJECTIVE.align(nets, own, heard)
        spoken = OBJECTIVE.say(nets, own, aligned, heard.mel.shape[1])
        found = OBJECTIVE.loss(nets, own, None, jax.random.key(0))
        return found.value, (found, heard, aligned, spoken)

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(fields["audio"])
    return jax.tree.map(np.asarray, (*found, gradient))


def test_loss_is_the_sum_of_its_terms():
    loss, heard, aligned, spoken, _ = computed()
    mask, terms = batch()["text_mask"], {name: [] for name in WEIGHTS}
    for b in USED:
        frames, symbols = heard.lengths[b], mask[b].sum()
        mel = heard.mel[b, :frames]
        terms["mel"] += list(np.abs(spoken.mel[b, :frames] - mel).mean(-1))
        terms["refined"] += list(np.abs(spoken.refined[b, :frames] - mel).mean(-1))
        likeliest, total = None, -np.inf
        for starts in itertools.combinations(range(1, frames), symbols - 1):
            path = np.searchsorted(starts, np.arange(frames), side="right")
            p = aligned.log_p[b, np.arange(frames), path]
            total = np.logaddexp(total, p.sum())
            if likeliest is None or p.sum() > likeliest[0]:
                likeliest = (p.sum(), path, p)
        terms["forward_sum"] += [-total / symbols] * symbols
        terms["binarisation"] += list(-likeliest[2])
        for n in range(symbols):
            own = [t for t in range(frames) if likeliest[1][t] == n]
            assert aligned.durations[b, n] == len(own)
            high = [heard.pitch[b, t] for t in own if heard.voiced[b, t]]
            pitch = np.mean(high) if high else 0.0
            energy = np.mean([heard.energy[b, t] for t in own])
            terms["duration"].append((spoken.log_durations[b, n] - np.log(1 + len(own))) ** 2)
            terms["pitch"].append((spoken.pitch[b, n] - pitch) ** 2)
            terms["energy"].append((spoken.energy[b, n] - energy) ** 2)
    for name, values in terms.items():
        total, count = loss.metrics[name]
        assert total / count == pytest.approx(np.mean(values), rel=1e-4), name
    factors = np.array([0.3 if name == "binarisation" else WEIGHTS[name] for name in terms])
    means = np.array([np.mean(values) for values in terms.values()])
    assert loss.value == pytest.approx(factors @ means, rel=1e-4)
    single = aligned.durations[USED][mask[USED]] == 1
    assert tuple(loss.metrics["single_frames"]) == (single.sum(), single.size)
    assert heard.voiced[6].any() and not heard.voiced[6, heard.lengths[6] :].any()


def test_rows_that_do_not_count():
    loss, heard, aligned, _, gradient = computed()
    assert list(np.flatnonzero(aligned.used)) == USED
    np.testing.assert_array_equal(heard.lengths, [6, 10, 11, 0, 8, 7, 10, 7])
    np.testing.assert_array_equal(
        aligned.durations.sum(1), np.where(aligned.used, heard.lengths, 0)
    )
    assert tuple(loss.metrics["used_rows"]) == (3, 8)
    assert tuple(loss.metrics["too_long"]) == (1, 6)  # of those with sound and words
    for row, length in enumerate(batch()["audio_lengths"]):
        assert (gradient[row, length:] == 0).all()
        assert np.abs(gradient[row, :length]).max(initial=0) > 0 if row in USED else True
        assert (gradient[row] == 0).all() or row in USED


def test_what_is_heard():
    objective = FastSpeech2(source="x", bands=20, energy_mean=0.5, energy_deviation=3.0)
    rng = np.random.default_rng(0)
    time = np.arange(4000) / 16_000
    waves = np.stack([np.sin(2 * np.pi * 150 * time) * 0.3, 0.1 * rng.normal(size=4000)])
    lengths = np.array([4000, 3333])
    heard = jax.jit(objective.hear)({"audio": jnp.float32(waves), "audio_lengths": lengths})
    for row, length in enumerate(lengths):
        wave, frames = waves[row, :length], 1 + length // 160
        assert heard.lengths[row] == frames
        expected = audio.log_mel(wave, 20)
        np.testing.assert_allclose(heard.mel[row, :frames], expected, atol=2e-3)
        padded, window = np.pad(wave, 200 + 160), np.hanning(401)[:-1]
        for t in range(frames):
            spectrum = np.fft.rfft(padded[160 + 160 * t : 560 + 160 * t] * window)
            norm = np.log(np.sqrt(np.square(np.abs(spectrum)).sum()))
            assert heard.energy[row, t] == pytest.approx((norm - 0.5) / 3, abs=1e-3)
    np.testing.assert_allclose(heard.pitch[0, 3:20], np.log(150), atol=0.01)
    assert heard.voiced[0, 3:20].all() and heard.voiced[1, :21].mean() < 0.3


def test_shifts_are_in_semitones_and_decibels():
    nets = FakeNets(speech__synthesise=lambda *args, **kwargs: None)
    fields = {"text": jnp.ones((2, 3), int), "lang": jnp.zeros(2, int)}
    fields["text_mask"] = jnp.array([[True, True, False], [True] * 3])
    OBJECTIVE.synthesise(nets, fields, frames=7, speed=1.5, semitones=12, decibels=20)
    args, options = nets.asked("speech.synthesise")
    np.testing.assert_array_equal(args[1], [2, 3])
    assert options["frames"] == 7 and options["speed"] == 1.5
    assert options["pitch_shift"] == pytest.approx(np.log(2) / 0.5)  # an octave
    assert options["energy_shift"] == pytest.approx(np.log(10) / 2.0)
    with pytest.raises(UserError, match="speed=0: must be above 0"):
        OBJECTIVE.synthesise(nets, fields, frames=7, speed=0)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="low=400, high=60"):
        FastSpeech2(source="x", low=400, high=60)
    with pytest.raises(UserError, match="pitch_deviation=0: must be above 0"):
        FastSpeech2(source="x", pitch_deviation=0)
