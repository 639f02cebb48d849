"""The networks: what depends on what, durations, shifts; the aligner against its equation in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from taichu_jax.errors import UserError
from taichu_jax.models.aligner import Aligner
from taichu_jax.models.fast_speech import FastSpeech
from taichu_jax.ops.alignment import NEVER

SIZES = {
    "vocab_size": 9,
    "languages": 2,
    "width": 8,
    "encoder_depth": 1,
    "decoder_depth": 1,
    "hidden": 8,
    "sizes": (3, 1),
    "predictor_width": 8,
    "predictor_layers": 1,
    "post_layers": 2,
    "post_width": 8,
    "post_size": 3,
    "bands": 5,
    "mel_mean": -4.0,
    "mel_deviation": 2.0,
}
MODULE = FastSpeech(**SIZES)
TEXT = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
MASK = np.array([[True] * 4, [True, True, False, False]])
DURATIONS = np.array([[2, 1, 3, 1], [4, 1, 0, 0]])
LANGUAGE = np.array([0, 1])
FRAMES = 8


@functools.cache
def params():
    zeros = jnp.zeros((2, 4))

    def every(module):
        embedded = module.embed(TEXT, LANGUAGE)
        return module(embedded, MASK, DURATIONS, zeros, zeros, frames=FRAMES)

    return jax.jit(lambda: MODULE.init(jax.random.key(0), method=every))()


@functools.cache
def compiled(which):
    weights = params()

    def say(text, durations, pitch, energy):
        embedded = MODULE.apply(weights, text, LANGUAGE, method="embed")
        return MODULE.apply(weights, embedded, MASK, durations, pitch, energy, frames=FRAMES)

    def synthesise(lengths, speed, pitch_shift, energy_shift):
        options = {"speed": speed, "pitch_shift": pitch_shift, "energy_shift": energy_shift}
        args = (TEXT, lengths, LANGUAGE)
        return MODULE.apply(weights, *args, method="synthesise", frames=30, **options)

    return jax.jit({"say": say, "synthesise": synthesise}[which])


def test_frames_are_said_with_the_given_durations_pitch_and_energy():
    rng = np.random.default_rng(0)
    pitch, energy = rng.normal(size=(2, 2, 4)).astype(np.float32)
    said = compiled("say")(TEXT, DURATIONS, pitch, energy)
    assert said.mel.shape == said.refined.shape == (2, FRAMES, 5)
    assert said.pitch.shape == said.energy.shape == said.log_durations.shape == (2, 4)
    higher = compiled("say")(TEXT, DURATIONS, pitch + 1, energy)
    np.testing.assert_array_equal(higher.pitch, said.pitch)  # predicted from the text alone
    np.testing.assert_array_equal(higher.log_durations, said.log_durations)
    for changed in (higher, compiled("say")(TEXT, DURATIONS, pitch, energy + 1)):
        assert np.abs(changed.mel - said.mel)[0, :7].max() > 1e-3
    assert np.abs(higher.energy - said.energy).max() > 1e-4  # the energy follows the given pitch


def test_padding_is_not_looked_at():
    rng = np.random.default_rng(0)
    pitch, energy = rng.normal(size=(2, 2, 4)).astype(np.float32)
    said = compiled("say")(TEXT, DURATIONS, pitch, energy)
    other = np.where(MASK, TEXT, 1)
    spoiled = compiled("say")(
        other, DURATIONS, np.where(MASK, pitch, 99.0), np.where(MASK, energy, np.nan)
    )
    np.testing.assert_allclose(spoiled.refined[1, :5], said.refined[1, :5], atol=1e-5)
    np.testing.assert_allclose(spoiled.energy[1], said.energy[1], atol=1e-6)
    assert (np.asarray(said.energy)[~MASK] == 0).all()


def test_predicted_and_given_values_say_the_same():
    lengths = MASK.sum(1)
    made = compiled("synthesise")(lengths, 1.0, 0.0, 0.0)
    total = np.minimum(made.durations.sum(1), 30)
    np.testing.assert_array_equal(made.lengths, total)
    assert (np.asarray(made.durations)[MASK] >= 1).all()
    assert (np.asarray(made.durations)[~MASK] == 0).all()
    durations = np.minimum(made.durations, 2)
    said = compiled("say")(TEXT, durations, made.pitch, made.energy)
    np.testing.assert_allclose(said.pitch, made.pitch, atol=1e-6)
    np.testing.assert_allclose(said.energy, made.energy, atol=1e-5)
    if (durations == np.asarray(made.durations)).all():
        both = min(FRAMES, int(total.min()))
        np.testing.assert_allclose(said.refined[:, :both], made.mel[:, :both], atol=1e-4)


def test_speed_and_shifts():
    lengths = MASK.sum(1)
    plain = compiled("synthesise")(lengths, 1.0, 0.0, 0.0)
    slow = compiled("synthesise")(lengths, 0.25, 0.0, 0.0)
    assert (slow.durations >= plain.durations).all() and (slow.lengths <= 30).all()
    assert slow.lengths.sum() > plain.lengths.sum()
    high = compiled("synthesise")(lengths, 1.0, 2.0, 0.0)
    np.testing.assert_array_equal(high.durations, plain.durations)
    np.testing.assert_array_equal(high.pitch, plain.pitch)
    loud = compiled("synthesise")(lengths, 1.0, 0.0, 2.0)
    for changed in (high, loud):
        assert np.abs(changed.mel - plain.mel)[0, : plain.lengths[0]].max() > 1e-3


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="width=9: must be even"):
        FastSpeech(**SIZES | {"width": 9}).init(jax.random.key(0), TEXT, method="embed")
    with pytest.raises(UserError, match="languages=2: the network must be told"):
        MODULE.init(jax.random.key(0), TEXT, method="embed")


@pytest.mark.parametrize("centred", [False, True])
def test_aligner_is_the_softmax_of_distances_and_the_prior(centred):
    module = Aligner(width=3, temperature=0.7, mel_mean=1.0, mel_deviation=2.0, centred=centred)
    rng = np.random.default_rng(0)
    embedded, mel = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 5, 2))
    symbols, frames = np.array([4, 2]), np.array([5, 3])
    args = [x.astype(np.float32) for x in (embedded, mel)]
    given = (args[0], symbols, args[1], frames)
    init = jax.jit(lambda *a: module.init_with_output(jax.random.key(1), *a))
    found, weights = jax.tree.map(np.asarray, init(*given))
    layers = {k: jax.tree.map(np.asarray, v) for k, v in weights["params"].items()}

    def dense(x, name):
        return x @ layers[name]["kernel"] + layers[name]["bias"]

    def windows(x):
        padded = np.pad(x, ((1, 1), (0, 0)))
        return np.stack([padded[i : i + 3].reshape(-1) for i in range(len(x))])

    for row in range(2):
        text, sound = embedded[row, : symbols[row]], (mel[row, : frames[row]] - 1) / 2
        f = np.maximum(dense(windows(sound), "frames_0"), 0)
        f = dense(np.maximum(dense(f, "frames_1"), 0), "frames_2")
        g = dense(np.maximum(dense(windows(text), "symbols_0"), 0), "symbols_1")
        distances = np.array([[np.square(a - b).sum() for b in g] for a in f])
        if centred:
            distances -= distances.mean(0)
        prior = np.full((5, 4), NEVER)
        for t in range(1, frames[row] + 1):
            shape = (symbols[row] - 1, t, frames[row] - t + 1)
            prior[t - 1, : symbols[row]] = scipy.stats.betabinom(*shape).logpmf(range(symbols[row]))
        for t in range(frames[row]):
            score = -0.7 * distances[t] + prior[t, : len(g)]
            expected = score - np.logaddexp.reduce(score)
            np.testing.assert_allclose(found[row, t, : len(g)], expected, atol=1e-4)
    assert (found[1, :3, 2:] < 0.9 * NEVER).all()
