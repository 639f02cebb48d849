"""The generator's place in time, and what the discriminators look at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taichu_jax.errors import UserError
from taichu_jax.models.hifi_gan import HifiGanDiscriminators, HifiGanGenerator
from taichu_jax.ops.speech_frames import HOP
from tests.inference.speakers import lively

GENERATOR = HifiGanGenerator(
    channels=8,
    rates=(8, 5, 4),
    sizes=(16, 15, 8),
    block_sizes=(3, 5),
    dilations=((1,), (1,)),
    mel_mean=-2.0,
)
DISCRIMINATORS = HifiGanDiscriminators(
    periods=(2, 3),
    period_channels=(3, 4),
    scales=2,
    scale_channels=(4, 4),
    scale_sizes=(5, 9),
    scale_strides=(1, 4),
    scale_groups=(1, 2),
)
FRAMES = 9
MEL = np.random.default_rng(0).normal(size=(2, FRAMES, 6)).astype(np.float32)
AUDIO = np.random.default_rng(1).normal(size=(2, 61)).astype(np.float32)


@functools.cache
def params():
    return jax.jit(GENERATOR.init)(jax.random.key(0), MEL)


@functools.cache
def made():
    trained = params()
    return jax.jit(lambda mel, lengths=None: GENERATOR.apply(trained, mel, lengths))


@functools.cache
def judged():
    params = jax.jit(DISCRIMINATORS.init)(jax.random.key(0), AUDIO)
    return params["params"], jax.jit(lambda audio: DISCRIMINATORS.apply(params, audio))


def test_an_impulse_is_heard_at_its_frame():
    """With equal weights everything is an average: what frame t changes lies evenly around t * HOP."""
    frames, t = 13, 6
    flat = jax.tree.map(lambda x: np.full(x.shape, 0.05, np.float32), params())
    flat["params"]["last"]["bias"] = np.zeros(1, np.float32)
    mel = np.zeros((1, frames, 6), np.float32)
    impulse = mel.copy()
    impulse[0, t] = 1.0
    run = jax.jit(GENERATOR.apply)
    change = np.asarray(run(flat, impulse) - run(flat, mel), np.float64)[0]
    assert change.shape == ((frames - 1) * HOP,) and change.min() >= 0
    heard = np.flatnonzero(change > 1e-6 * change.max())
    assert heard[0] > 0 and heard[-1] < len(change) - 1  # nothing was cut off
    # A block of 160 samples has its middle between two of them.
    centre = t * HOP - 0.5
    assert abs((heard[0] + heard[-1]) / 2 - centre) <= 1
    assert abs((change * np.arange(len(change))).sum() / change.sum() - centre) <= 1


def test_every_sample_has_its_frames():
    before = np.asarray(made()(MEL))
    assert before.shape == (2, (FRAMES - 1) * HOP) and np.abs(before).max() <= 1
    for t, edge in ((0, 0), (FRAMES - 1, -1)):
        changed = MEL.copy()
        changed[0, t] += 3.0
        after = np.asarray(made()(changed))
        assert np.abs(after[0] - before[0])[edge] > 0
        np.testing.assert_array_equal(after[1], before[1])


def test_sounds_do_not_depend_on_what_is_behind_them():
    lengths = np.array([FRAMES, 5], np.int32)
    spoiled = MEL.copy()
    spoiled[1, 5:] = np.nan
    beside, alone = np.asarray(made()(spoiled, lengths)), np.asarray(made()(MEL[1:, :5]))
    np.testing.assert_allclose(beside[1, : 4 * HOP], alone[0], rtol=1e-4, atol=1e-6)
    assert np.abs(beside[1, 4 * HOP :]).max() == 0
    np.testing.assert_allclose(beside[0], np.asarray(made()(MEL))[0], rtol=1e-4, atol=1e-6)


def weights(params, name):
    layer = jax.tree.map(np.asarray, params[name])
    kernel = layer["kernel"]
    return kernel / np.sqrt(np.square(kernel).sum((0, 1))) * layer["scale"], layer["bias"]


def convolved(x, kernel, bias, stride, slope=0.1):
    """x [T, C] by a loop; leaky ReLU behind it."""
    size, before = len(kernel), (len(kernel) - 1) // 2
    y = np.tile(bias, (-(-len(x) // stride), 1))
    for n in range(len(y)):
        for i in range(size):
            t = n * stride + i - before
            if 0 <= t < len(x):
                y[n] += x[t] @ kernel[i]
    return np.where(y > 0, y, slope * y)


def test_a_period_is_judged_by_samples_so_far_apart():
    params, judge = judged()
    out = judge(AUDIO)
    assert len(out) == 4
    for number, period in enumerate((2, 3)):
        padded = np.pad(AUDIO, ((0, 0), (0, -AUDIO.shape[1] % period)))
        for b in range(2):
            for shift in range(period):
                x = padded[b, shift::period, None]
                for i, stride in enumerate((3, 1)):
                    x = convolved(x, *weights(params, f"period_{period}_{i}"), stride)
                    found = out[number].features[i][b, shift]
                    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)
                score = convolved(x, *weights(params, f"period_{period}_score"), 1, slope=1.0)
                size = len(score)
                found = out[number].score[b, shift * size : (shift + 1) * size]
                np.testing.assert_allclose(found, score[:, 0], rtol=1e-4, atol=1e-5)


def test_scales_see_averages_of_four():
    params, judge = judged()
    out = judge(AUDIO)
    x = AUDIO[0]
    for scale in range(2):
        if scale:
            padded = np.pad(x, (2, 3))
            x = np.array([padded[2 * n : 2 * n + 4].mean() for n in range(-(-len(x) // 2))])
        first = convolved(x[:, None], *weights(params, f"scale_{scale}_0"), 1)
        np.testing.assert_allclose(out[2 + scale].features[0][0], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out[2].features[-1][..., 0], out[2].score)


def test_a_paired_block_has_twice_the_convolutions():
    single = jax.eval_shape(GENERATOR.clone(paired=False).init, jax.random.key(0), MEL)["params"]
    double = jax.eval_shape(GENERATOR.init, jax.random.key(0), MEL)["params"]
    assert len(double) - len(single) == 3 * 2
    assert jnp.prod(jnp.array(double["last"]["kernel"].shape)) == 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rates": (8, 5, 2)}, r"rates=\(8, 5, 2\): must multiply to 160"),
        ({"sizes": (16, 15)}, "must be equally many"),
        ({"dilations": ((1,),)}, "must be equally many"),
        ({"channels": 12}, "channels=12: must be a multiple of 8"),
        ({"sizes": (16, 10, 8)}, "size=10: must be a multiple of the rate 5"),
    ],
)
def test_a_generator_that_cannot_be_is_named(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(GENERATOR.clone(**fields).init, jax.random.key(0), MEL)


def test_discriminators_that_cannot_be_are_named():
    for fields, message in (
        ({"periods": (), "scales": 0}, "at least one discriminator"),
        ({"scale_sizes": (5,)}, "must be equally many"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(DISCRIMINATORS.clone(**fields).init, jax.random.key(0), AUDIO)


@pytest.mark.parametrize("paired", [False, True])
def test_the_receptive_field_is_exact(paired):
    """One frame changed at a time: which hops of samples change with it."""
    generator = HifiGanGenerator(
        channels=4,
        rates=(16, 10),
        sizes=(48, 20),
        block_sizes=(3, 4),
        dilations=((1, 2), (4,)),
        paired=paired,
    )
    frames, bands = 24, 3
    before, after = generator.receptive_field()
    assert before < 12 > after and before + after > 6
    shapes = jax.eval_shape(generator.init, jax.random.key(0), np.zeros((1, frames, bands)))
    rng = np.random.default_rng(0)
    weights = lively(shapes)
    mel = rng.normal(size=(1, frames, bands)).astype(np.float32)
    changed = np.repeat(mel, frames, 0)
    changed[np.arange(frames), np.arange(frames)] += rng.normal(size=bands)
    made = np.asarray(jax.jit(generator.apply)(weights, np.concatenate([mel, changed])))
    hops = made.reshape(frames + 1, frames - 1, HOP)
    moved = (hops[1:] != hops[0]).any(-1)  # [changed frame, hop]
    frame, hop = np.arange(frames)[:, None], np.arange(frames - 1)
    np.testing.assert_array_equal(moved, (frame >= hop - before) & (frame <= hop + after))
