"""Part of another utterance, or noise, added to some utterances of a batch (WavLM, arXiv 2110.13900).

Algorithm 1 of the paper. With `probability` an utterance of n samples gets a stretch of l samples from
another one of the batch, l uniform in 1 ... n / 2, taken from a random place and added at a random
place, scaled so that the energies per sample of the two whole utterances differ by r dB, r uniform in
`decibels`. A share `noise` of the stretches is noise instead, with r uniform in `noise_decibels`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.random import fold_name


def mix_utterances(
    rng: jax.Array,
    audio: jax.Array,
    lengths: jax.Array,
    *,
    probability: float,
    decibels: tuple[float, float],
    noise: float,
    noise_decibels: tuple[float, float],
) -> tuple[jax.Array, jax.Array]:
    """(mixed audio float32 [B, T], bool [B, T] true where something was added).

    The noise is white, where the authors add recorded noises. A batch of one has noise only.

    Args:
      audio: [B, T]; what is behind `lengths` int32 [B] is zeroed.
    """
    rows, size = audio.shape

    def draw(name, low=0.0, high=1.0):
        return jax.random.uniform(fold_name(rng, name), (rows,), minval=low, maxval=high)

    def at_most(name, largest):
        """int32 [B], uniform in 0 ... largest [B]."""
        return jnp.minimum(jnp.floor(draw(name) * (largest + 1)).astype(jnp.int32), largest)

    audio = zero_beyond(audio.astype(jnp.float32), within(lengths, size))
    other = (jnp.arange(rows) + 1 + at_most("other", jnp.full(rows, max(rows - 2, 0)))) % rows
    is_noise = draw("noise") < noise
    white = jax.random.normal(fold_name(rng, "white"), audio.shape)
    available = jnp.where(is_noise, size, lengths[other])
    second = zero_beyond(jnp.where(is_noise[:, None], white, audio[other]), within(available, size))

    chosen = (draw("chosen") < probability) & (lengths >= 2) & (is_noise | (rows > 1))
    stretch = jnp.minimum(1 + at_most("stretch", jnp.maximum(lengths // 2 - 1, 0)), available)
    stretch = jnp.where(chosen, stretch, 0)
    to = at_most("to", jnp.maximum(lengths - stretch, 0))
    start = at_most("from", jnp.maximum(available - stretch, 0))

    def energy(x, count):
        return jnp.square(x).sum(-1) / jnp.maximum(count, 1)

    ratio = jnp.where(is_noise, draw("decibels", *noise_decibels), draw("decibels", *decibels))
    own, foreign = energy(audio, lengths), energy(second, available)
    scale = jnp.sqrt(own / jnp.maximum(10 ** (ratio / 10) * foreign, 1e-12))

    time = jnp.arange(size)
    added = (time >= to[:, None]) & (time < (to + stretch)[:, None])
    source = jnp.clip(time + (start - to)[:, None], 0, size - 1)
    moved = jnp.take_along_axis(second, source, axis=1)
    return audio + jnp.where(added, scale[:, None] * moved, 0.0), added
