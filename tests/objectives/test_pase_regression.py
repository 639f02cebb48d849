"""PASE's regressions against loops over frames and neighbours, and the sharing of one encoding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.config import build, spec
from taichu_jax.errors import UserError
from taichu_jax.models.heads import Projection
from taichu_jax.models.pase import PaseEncoder
from taichu_jax.objectives.speech.pase_discrimination import PaseDiscrimination
from taichu_jax.objectives.speech.pase_regression import TARGETS, PaseRegression, neighbours
from taichu_jax.ops import speech_features
from taichu_jax.ops.distortions import Distortions
from taichu_jax.ops.prosody import prosody
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params
from taichu_jax.training.step import make_loss
from tests import batches
from tests import case as cases
from tests.cases.pase_regression import ENCODER

BATCH = batches.waveform(batch=3)
BATCH["audio_lengths"][2] = 0
COUNTS = BATCH["audio_lengths"] // 160
# target -> (settings, columns before slopes)
SETTINGS = {
    "wave": ({}, 160),
    "log_power": ({"size": 64, "window": 60}, 33),
    "mfcc": ({"size": 4, "window": 320, "slopes": 1}, 4),
    "filter_bank": ({"size": 6}, 6),
    "gammatone": ({"size": 5, "window": 800}, 5),
    "prosody": ({"slopes": 2}, 4),
}


def raw(target):
    """What is described, before normalisation, by a direct call."""
    x, n = BATCH["audio"], BATCH["audio_lengths"]
    described = {
        "log_power": lambda: speech_features.log_power(x, n, window=60, transform=64),
        "mfcc": lambda: speech_features.with_slopes(
            speech_features.mfcc(x, n, order=4, window=320), COUNTS, 1
        ),
        "filter_bank": lambda: speech_features.filter_bank(x, n, bands=6),
        "gammatone": lambda: speech_features.gammatone(x, n, channels=5, window=800),
        "prosody": lambda: speech_features.with_slopes(prosody(x, n), COUNTS, 2),
    }
    return np.asarray(jax.jit(described[target])(), np.float64)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("distorted", [False, True])
def test_loss_is_the_papers(target, distorted):
    if distorted and target not in ("wave", "prosody"):
        return
    settings, columns = SETTINGS[target]
    context = 2 if target == "filter_bank" else 0
    columns *= (1 + settings.get("slopes", 0)) * (2 * context + 1)
    modules = {"speech": build(ENCODER), "head": Projection(features=columns)}
    objective = PaseRegression(
        source="stream",
        target=target,
        head="head",
        context=context,
        distorted=distorted,
        **settings,
    )
    batch = {k: jnp.asarray(v) for k, v in BATCH.items()}

    @jax.jit
    def run(batch):
        params = init_params(modules, {"pase": objective}, {"stream": batch}, 0)[0]
        nets = BoundNets(modules, params, step=4)
        loss = objective.loss(nets, batch, None, jax.random.key(0))
        heard = batch["audio"]
        if distorted:  # the encoder hears it, the worker describes what was clean
            heard = build(ENCODER).distortions(heard, batch["audio_lengths"], 4)
        return loss, nets("head", nets("speech", heard, batch["audio_lengths"]).tokens)

    loss, predicted = run(batch)
    predicted = np.asarray(predicted, np.float64)
    errors, baseline = [], []
    for b, n in enumerate(COUNTS):
        if target == "wave":
            x = BATCH["audio"][b, : n * 160].reshape(n, 160)
        elif n:
            x = raw(target)[b, :n]
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-8)
        for t in range(n):
            y = predicted[b, t].reshape(2 * context + 1, -1)
            for k in range(-context, context + 1):
                if 0 <= t + k < n:
                    errors.append(x[t + k] - y[k + context])
            baseline.append(x[t])
    size = np.abs if target == "wave" else np.square
    # an utterance without pitch has constant columns, of which normalisation leaves rounding errors
    rtol = 1e-3 if target == "prosody" else 1e-4
    np.testing.assert_allclose(loss.value, size(np.stack(errors)).mean(), rtol=rtol)
    total, count = loss.metrics["mean_error"]
    np.testing.assert_allclose(total / count, size(np.stack(baseline)).mean(), rtol=rtol)
    # a loss of 1 is what the mean costs, whatever the units; noise may have no pitch, 3 columns of 12
    lowest = {"wave": 0, "prosody": 0.74}.get(target, 0.999)
    assert lowest < total / count < 1.001


def test_neighbours_are_the_frames_around():
    x = np.arange(1, 13, dtype=np.float32).reshape(2, 6, 1)
    real = np.arange(6) < np.array([[6], [4]])
    near, there = neighbours(jnp.asarray(x), jnp.asarray(real), 2)
    assert near.shape == (2, 6, 5, 1)
    for b, n in enumerate([6, 4]):
        for t in range(6):
            for k in range(5):
                inside = t < n and 0 <= t + k - 2 < n
                assert bool(there[b, t, k]) == inside
                if inside:
                    assert near[b, t, k, 0] == x[b, t + k - 2, 0]


@functools.cache
def calls():
    return []


class CountingEncoder(PaseEncoder):
    """Notes every trace of its two methods."""

    def distort(self, *args):
        calls().append("distort")
        return super().distort(*args)

    def __call__(self, *args):
        calls().append("encode")
        return super().__call__(*args)


def test_all_workers_of_a_step_share_one_distortion_and_one_encoding():
    fields = {k: v for k, v in ENCODER.items() if k not in ("kind", "distortions")}
    modules = {
        "speech": CountingEncoder(**fields, distortions=Distortions()),
        "prosody_head": Projection(features=4),
        "wave_head": Projection(features=160),
        "lim_head": Projection(features=1),
    }
    common = {"source": "stream", "distorted": True}
    objectives = {
        "prosody": PaseRegression(target="prosody", head="prosody_head", **common),
        "wave": PaseRegression(target="wave", head="wave_head", **common),
        "lim": PaseDiscrimination(mode="local", head="lim_head", **common),
    }
    streams = {"stream": {k: jnp.asarray(v) for k, v in BATCH.items()}}
    shapes = jax.eval_shape(lambda: init_params(modules, objectives, streams, 0))
    calls().clear()
    # the step is traced here, as in the train step
    jax.eval_shape(make_loss(modules, objectives, 0), *shapes, streams, jnp.int32(3))
    assert calls() == ["distort", "encode"]


def test_the_draw_moves_with_the_step_and_not_with_the_objective():
    modules, objective, params, *_ = cases.built("pase_regression")
    batch = cases.load("pase_regression").batch

    @jax.jit
    def value(step, rng):
        nets = BoundNets(modules, params, step=step)
        return objective.loss(nets, batch, None, rng).value

    first = value(1, jax.random.key(0))
    assert first == value(1, jax.random.key(9)) and first != value(2, jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "mfc"}, "target='mfc'; did you mean 'mfcc'"),
        ({"size": 7}, "'mfcc_head' gives 30 features, target 'mfcc' has 42"),
        ({"target": "wave", "size": None}, "target='wave' has no slopes"),
        ({"target": "prosody"}, "target='prosody' has no size"),
        ({"encoder": "slow"}, "gives 20 states for 10 frames"),
    ],
)
def test_errors_say_what_is_wrong(fields, message):
    modules, objective, params, *_ = cases.built("pase_regression")
    slow = spec(PaseEncoder, **{k: v for k, v in ENCODER.items() if k != "kind"})
    slow.strides = (20, 4)
    modules = modules | {"slow": build(slow)}
    nets = BoundNets(modules, params | {"slow": params["speech"]})
    batch = {k: jnp.asarray(v) for k, v in cases.load("pase_regression").batch.items()}
    objective = dataclasses.replace(objective, **fields)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: objective.loss(nets, batch, None, jax.random.key(0)).value)
