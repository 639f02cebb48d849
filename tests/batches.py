"""Small random batches with the fields that streams give, ragged and with absent modalities."""

from __future__ import annotations

import numpy as np

from taichu_jax.ops.vocabulary import CLS, FIRST_TOKEN, SEP

VOCAB, LENGTH, FRAMES, BANDS, SAMPLES, SIZE = 40, 10, 32, 16, 1600, 16


def text(batch: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, LENGTH + 1, batch)
    mask = np.arange(LENGTH) < lengths[:, None]
    tokens = rng.integers(FIRST_TOKEN, VOCAB, (batch, LENGTH))
    tokens[:, 0] = CLS
    tokens[np.arange(batch), lengths - 1] = SEP
    return {"text": np.where(mask, tokens, 0).astype(np.int32), "text_mask": mask}


def mel(batch: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(FRAMES // 2, FRAMES + 1, batch)
    frames = rng.normal(size=(batch, FRAMES, BANDS))
    frames *= (np.arange(FRAMES) < lengths[:, None])[..., None]
    return {"mel": frames.astype(np.float32), "mel_lengths": lengths.astype(np.int32)}


def waveform(batch: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SAMPLES // 2, SAMPLES + 1, batch)
    samples = rng.normal(size=(batch, SAMPLES)) * (np.arange(SAMPLES) < lengths[:, None])
    return {"audio": samples.astype(np.float32), "audio_lengths": lengths.astype(np.int32)}


def image(batch: int = 8, seed: int = 0, name: str = "image") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(size=(batch, SIZE, SIZE, 3)).astype(np.float32)}


def triplets(batch: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Text, mel and image; in each modality some examples are absent, every example has at least one."""
    rng = np.random.default_rng(seed + 1)
    fields = text(batch, seed) | mel(batch, seed) | image(batch, seed)
    has = rng.uniform(size=(batch, 3)) < 0.8
    has[:3] = True  # some complete examples, whatever the draw
    has[~has.any(1)] = [True, False, False]
    for column, (name, own) in enumerate(MODALITIES.items()):
        fields[f"has_{name}"] = has[:, column]
        for field in own:
            keep = has[:, column].reshape(-1, *([1] * (fields[field].ndim - 1)))
            fields[field] = np.where(keep, fields[field], np.zeros_like(fields[field]))
    fields["concept"] = rng.integers(0, batch, batch).astype(np.int32)
    return fields


MODALITIES = {"text": ("text", "text_mask"), "audio": ("mel", "mel_lengths"), "image": ("image",)}
