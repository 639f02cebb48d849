"""Tiny runs with a codec and with a vocoder, and a sound; weights are random."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import types

import jax
import numpy as np

from taichu_jax.data import audio
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.hifi_gan import HifiGanGenerator
from taichu_jax.models.residual_quantiser import ResidualQuantiser

BANDS, STAGES = 8, 2
CODEC = MelTokeniser(
    width=8,
    depth=1,
    stride=4,
    bands=BANDS,
    mel_mean=-8.0,
    mel_deviation=4.0,
    quantiser=ResidualQuantiser(stages=STAGES, codes=9, dim=4),
)
GENERATOR = HifiGanGenerator(
    channels=8,
    rates=(16, 10),
    sizes=(48, 20),
    block_sizes=(3,),
    dilations=((2,),),
    paired=False,
    mel_mean=-8.0,
    mel_deviation=4.0,
)
_RNG = np.random.default_rng(0)
WAVE = (0.1 * _RNG.normal(size=9_735) * np.sin(np.arange(9_735) / 700)).astype(np.float32)
MEL = audio.log_mel(WAVE, BANDS)  # 61 frames: 15 tokens and a frame


@dataclasses.dataclass(frozen=True)
class Run:
    path: pathlib.Path
    experiment: types.SimpleNamespace
    params: dict


@functools.cache
def codec_run() -> Run:
    """An open run whose network `speech` is CODEC."""

    def both(module, mel, lengths):
        return module.decode(module.codes(mel, lengths), lengths)

    lengths = np.array([len(MEL)], np.int32)
    shapes = jax.eval_shape(
        functools.partial(CODEC.init, method=both), jax.random.key(0), MEL[None], lengths
    )
    return _run("speech", CODEC, lively(shapes["params"], seed=4))


@functools.cache
def vocoder_run() -> Run:
    """An open run whose network `vocoder` is GENERATOR."""
    shapes = jax.eval_shape(GENERATOR.init, jax.random.key(0), MEL[None])
    return _run("vocoder", GENERATOR, lively(shapes["params"], 2.0))


def _run(name: str, network, params) -> Run:
    experiment = types.SimpleNamespace(networks={name: network}, compute_dtype=None)
    return Run(pathlib.Path("runs/x"), experiment, {name: params})


def lively(shapes, gain: float = 1.0, seed: int = 1):
    """Random weights that let a layer's input through: kernels of length `gain`, small biases."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        share = {"scale": 0.0, "bias": 0.1}.get(path[-1].key, 1.0)
        values = share * rng.normal(size=leaf.shape)
        return (values + gain * (path[-1].key == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def pieces(values: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The values cut into pieces of these sizes, over and over."""
    found, start, i = [], 0, 0
    while start < len(values):
        found.append(values[start : start + sizes[i % len(sizes)]])
        start, i = start + sizes[i % len(sizes)], i + 1
    return found
