"""A tiny run that draws and speaks, a judge of another seed, and a data set in memory."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taichu_jax.config import build, spec
from taichu_jax.data.records import Entry
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import ByteTokenizer
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.opt_audio_reconstruction import OPTAudioReconstruction
from taichu_jax.objectives.multimodal.opt_image_reconstruction import OPTImageReconstruction
from taichu_jax.training.experiment import defaults
from taichu_jax.training.state import init_params
from tests.evals import tiny

THINGS, LANGUAGES, SIZE, BANDS, WIDTH, STRIDE = 5, ("fr", "ro"), 8, 24, 8, 4
TOKENS = 6  # of the longest sound that is spoken


class Source:
    """Grey pictures and tones; a thing's recordings differ in length by language."""

    entries = tuple(Entry(f"{i}", i, i % 2, LANGUAGES, LANGUAGES, True) for i in range(THINGS))

    def texts(self, row: int) -> dict[str, str]:
        return {lang: f"{lang} <{row}>" for lang in LANGUAGES}

    def canvas(self, row: int, side: int) -> np.ndarray:
        grey = np.random.default_rng(row).integers(0, 255, (side, side, 1), np.uint8)
        return np.concatenate([np.repeat(grey, 3, -1), np.full_like(grey, 255)], axis=-1)

    def wave(self, row: int, lang: str, trim: bool = False) -> np.ndarray:
        del trim
        seconds = 0.25 if lang == "fr" else 0.4
        time = np.arange(round(16000 * seconds)) / 16000
        noise = np.random.default_rng(row).normal(size=time.size)
        wave = 0.3 * np.sin(2 * np.pi * 300 * (row + 1) * time) + 0.01 * noise
        return (wave * 32767).astype(np.int16)

    def report(self, row: int, damage: Exception) -> None:
        raise damage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Things(Triplets):
    """Every thing in two languages; any split."""

    dataset: str = "things"
    batch_size: int = 4
    image_size: int = SIZE
    text_length: int = 10
    seconds: float = 0.32
    mel_bands: int = BANDS
    trim: bool = True

    def source(self, data_dir: Any) -> Any:
        del data_dir
        return Source()


class Tokens(nn.Module):
    """A product of every row of a modality."""

    @nn.compact
    def __call__(self, x: jax.Array, within: jax.Array | None = None) -> Encoded:
        mask = jnp.ones(x.shape[:2], bool)
        if x.ndim == 2:  # ids, with their mask
            x, mask = x[..., None] / 256, within
        elif within is not None:  # frames, with their lengths
            mask = jnp.arange(x.shape[1]) < within[:, None]
        return Encoded(tokens=jnp.tanh(nn.Dense(WIDTH)(x.reshape(*x.shape[:2], -1))), mask=mask)


class Fusion(nn.Module):
    """All tokens in a row; nothing is mixed."""

    @nn.compact
    def __call__(self, text, image, audio) -> Encoded:
        parts = (text, image, audio)
        return Encoded(
            tokens=nn.Dense(WIDTH)(jnp.concatenate([x.tokens for x in parts], 1)),
            mask=jnp.concatenate([x.mask for x in parts], 1),
        )


class ExactPictures(nn.Module):
    """A code is a pixel's grey level: grey pictures come back as they were."""

    shrink: int = 1
    entries: int = 256

    @nn.nowrap
    def codes(self, images):
        return jnp.round(images[..., 0] * 255).astype(jnp.int32)

    @nn.nowrap
    def decode(self, codes):
        return jnp.repeat(codes[..., None] / 255, 3, -1)


class ExactSpeech(nn.Module):
    """Codes are the bits of a token's frames, which come back as they were; one code is a level."""

    stride: int = STRIDE
    bands: int = BANDS

    @nn.nowrap
    def token_count(self, frames):
        return -(-frames // self.stride)

    @nn.nowrap
    def codes(self, mel, lengths):
        del lengths
        mel = jnp.pad(mel, ((0, 0), (0, -mel.shape[1] % self.stride), (0, 0)))
        bits = jax.lax.bitcast_convert_type(mel, jnp.int32)
        return bits.reshape(len(mel), -1, self.stride * self.bands)

    @nn.nowrap
    def decode(self, codes, lengths=None):
        del lengths
        if codes.shape[-1] == 1:
            tilt = jnp.arange(self.bands) / self.bands - 6
            levels = jnp.repeat(-codes.astype(jnp.float32), self.stride, axis=1)
            return levels * jnp.cos(jnp.arange(self.bands)) + tilt
        values = jax.lax.bitcast_convert_type(codes, jnp.float32)
        return values.reshape(len(codes), -1, self.bands)


ENCODERS = {name: spec(Tokens) for name in ("text", "image", "audio")}
SIZES = {"width": WIDTH, "depth": 1, "heads": 2}
NETWORKS = ENCODERS | {
    "fusion": spec(Fusion),
    "image_tokeniser": spec(ExactPictures),
    "audio_tokeniser": spec(ExactSpeech),
    "image_code_decoder": spec(
        CodeDecoder, entries=256, length=SIZE**2, grid=(SIZE, SIZE), **SIZES
    ),
    "audio_code_decoder": spec(CodeDecoder, entries=4, length=TOKENS + 1, ends=True, **SIZES),
}
JUDGE = ENCODERS | {
    **{f"{name}_projection": spec(Projection, features=WIDTH) for name in ENCODERS},
    "scale": spec(LogitScale),
}


@functools.cache
def _params(judges: bool, seed: int):
    """(networks, objectives, weights)."""
    networks, objectives = build(JUDGE if judges else NETWORKS), _objectives(judges)
    # The exact tokenisers make codes of one stage only for what is written.
    modules, batch = dict(networks), _batch()
    if judges:
        init = jax.jit(lambda: init_params(modules, objectives, {"things": batch}, seed)[0])
        return networks, objectives, init()
    states, mask = np.zeros((1, 3, WIDTH), np.float32), np.ones((1, 3), bool)
    one, key = np.zeros((1, 1, 1), np.int32), jax.random.key(seed)
    fields = {"text": ("text", "text_mask"), "image": ("image",), "audio": ("mel", "mel_lengths")}

    @jax.jit
    def init():
        made = {k: modules[k].init(key, *(batch[f] for f in v)) for k, v in fields.items()}
        parts = [Encoded(tokens=states, mask=mask)] * 3
        made["fusion"] = modules["fusion"].init(key, *parts)
        for name in ("image_code_decoder", "audio_code_decoder"):
            made[name] = modules[name].init(key, one, mask[:, :1], states, mask)
        return {k: v["params"] for k, v in made.items()}

    # Sharp ones, so that what is given can be seen in what is made.
    weights = jax.tree.map(lambda x: 3 * x, init())
    return networks, objectives, weights | {"image_tokeniser": {}, "audio_tokeniser": {}}


def _objectives(judges: bool) -> dict[str, Any]:
    if judges:
        return {"alignment": ContrastiveAlignment(source="things")}
    return {
        "image_codes": OPTImageReconstruction(source="things"),
        "audio_codes": OPTAudioReconstruction(source="things"),
    }


def _batch() -> dict[str, jax.Array]:
    batch = next(Things(split="test", languages=LANGUAGES).epoch(None, ByteTokenizer()))
    return {k: jnp.asarray(v) for k, v in batch.items() if k != "valid"}


def run(path: pathlib.Path, *, judges: bool = False, evaluations: Any = None, seed: int = 1) -> Any:
    """An open run, as `training.run.Run` is: one that makes things, or one that judges them."""
    networks, objectives, params = _params(judges, seed)
    config = defaults()
    config.name, config.data.dir = "judge" if judges else "maker", str(path / "data")
    experiment = tiny.Experiment(networks, objectives, {"things": Things()}, evaluations or {})
    return tiny.Run(path, config, experiment, ByteTokenizer(), params)
