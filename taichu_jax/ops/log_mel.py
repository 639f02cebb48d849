"""The spectrograms of `data/audio.py`, computed on the device, through which gradients flow."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from taichu_jax.ops.speech_features import FLOOR, filter_bank
from taichu_jax.ops.speech_frames import HOP

WINDOW = 400  # samples; also the length of the transform, unlike in the descriptions of PASE
SILENCE = math.log(FLOOR)


def log_mel(audio: jax.Array, lengths: jax.Array, bands: int = 80) -> jax.Array:
    """ln(max(FLOOR, mel power)) float32 [B, 1 + T // HOP, bands] of samples [B, T] in [-1, 1].

    Frame t is centred on sample t * HOP, with zeros beyond both ends. What is behind `lengths` [B] is
    never looked at; frames whose window lies behind are SILENCE.
    """
    longer = jnp.pad(audio, ((0, 0), (0, HOP)))  # room for the frame that is centred on the end
    return filter_bank(longer, lengths, bands=bands, window=WINDOW, transform=WINDOW)
