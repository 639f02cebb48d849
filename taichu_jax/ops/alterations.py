"""Alterations of log-mel speech along time, frequency and magnitude, and the error of undoing them.

Mockingjay (arXiv 1910.12638) alters time; TERA (arXiv 2007.06028) adds the other two. Every builder
returns the altered frames and the cells that it altered or meant to; what is behind the end of an
utterance comes back as it was and is never among them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.ops.frames import stack_frames
from taichu_jax.ops.lengths import within
from taichu_jax.ops.masking import choose_exactly
from taichu_jax.ops.spans import spans_from


def alter_time(
    rng: jax.Array,
    mel: jax.Array,
    lengths: jax.Array,
    *,
    rate: float = 0.15,
    span: int = 7,
    zero_rate: float = 0.8,
    random_rate: float = 0.1,
) -> tuple[jax.Array, jax.Array]:
    """Hides spans of frames of mel [B, F, M]; returns it with the chosen cells, bool [B, F, M].

    An utterance of n frames gets round(rate n / span) spans, their starts drawn without replacement
    from its first n - span frames (so the last frame stays); spans may overlap. One draw per utterance
    decides what happens to all of them: they become zero, or are replaced by as many other spans of
    the same utterance, or stay, and are chosen all the same. Where two overlap, a replacement goes on
    until the next begins. An utterance of no more than `span` frames is left alone; at the default
    rate the rounding leaves out everything below 24 frames anyway.

    Args:
      lengths: int32 [B], in frames.
      rate: share of the frames that would be chosen if no two spans overlapped.
      zero_rate, random_rate: probabilities of zeros and of other spans; the rest stays.
    """
    where_key, source_key, fate_key = jax.random.split(rng, 3)
    frames = mel.shape[1]
    places = jnp.maximum(lengths - span, 0)
    allowed = within(places, frames)
    count = jnp.minimum(jnp.round(rate * lengths / span).astype(jnp.int32), places)
    starts = choose_exactly(where_key, allowed, count)
    chosen = spans_from(starts, span)[..., None]

    # Where the replacement of every span begins: the first of all places in random order.
    noise = jnp.where(allowed, jax.random.uniform(source_key, allowed.shape), 2.0)
    sources = jnp.argsort(noise, axis=-1)
    index = jnp.arange(frames)
    which = jnp.maximum(jnp.cumsum(starts, axis=-1) - 1, 0)
    begun = jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
    source = jnp.take_along_axis(sources, which, axis=-1) + index - begun
    elsewhere = jnp.take_along_axis(mel, jnp.minimum(source, frames - 1)[..., None], axis=1)

    fate = jax.random.uniform(fate_key, (len(mel), 1, 1))
    changed = jnp.where(fate < zero_rate + random_rate, elsewhere, mel)
    changed = jnp.where(fate < zero_rate, 0, changed)
    return jnp.where(chosen, changed, mel), jnp.broadcast_to(chosen, mel.shape)


def alter_frequency(
    rng: jax.Array, mel: jax.Array, lengths: jax.Array, *, share: float = 0.2
) -> tuple[jax.Array, jax.Array]:
    """Zeroes one range of bands through each utterance; returns mel [B, F, M] and the zeroed cells.

    The width is uniform on 0 .. floor(share M), the first band on 0 .. M - width - 1: the highest band
    is never hidden (the authors' range, and SpecAugment's).
    """
    width_key, start_key = jax.random.split(rng)
    batch, frames, bands = mel.shape
    width = jax.random.randint(width_key, (batch, 1), 0, int(share * bands) + 1)
    start = jax.random.randint(start_key, (batch, 1), 0, bands - width)
    index = jnp.arange(bands)
    band = (index >= start) & (index < start + width)
    where = band[:, None] & within(lengths, frames)[..., None]
    return jnp.where(where, 0, mel), where


def alter_magnitude(
    rng: jax.Array,
    mel: jax.Array,
    lengths: jax.Array,
    *,
    rate: float = 0.15,
    deviation: float = 0.2,
    whole_batch: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Adds Gaussian noise to every cell of some utterances; returns mel [B, F, M] and these cells.

    Args:
      rate: probability of noise.
      deviation: standard deviation of the noise.
      whole_batch: one draw decides for all utterances of the batch, instead of one for each.
    """
    noisy_key, noise_key = jax.random.split(rng)
    batch, frames, _ = mel.shape
    noisy = jax.random.uniform(noisy_key, (1 if whole_batch else batch, 1, 1)) < rate
    where = jnp.broadcast_to(noisy & within(lengths, frames)[..., None], mel.shape)
    noise = deviation * jax.random.normal(noise_key, mel.shape)
    return jnp.where(where, mel + noise.astype(mel.dtype), mel), where


def reconstruction_error(
    predicted: jax.Array, mel: jax.Array, lengths: jax.Array, where: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(sum of |predicted - mel| over the cells `where`, their number), float32.

    Args:
      predicted: [B, N, S * M], the S frames of every token, one after the other.
      mel: [B, F, M], with N = ceil(F / S).
      where: bool [B, F, M].
    """
    frames, bands = mel.shape[1:]
    tokens, width = predicted.shape[1:]
    stride = width // bands
    if width % bands or not stride or -(-frames // stride) != tokens:
        raise UserError(
            f"{width} values are predicted for each of {tokens} tokens, which is not {frames} frames "
            f"of {bands} bands; the head needs features = the encoder's stride * {bands}"
        )
    target = stack_frames(mel, lengths, stride).astype(jnp.float32)
    cells = stack_frames(where, lengths, stride).astype(bool)
    errors = jnp.where(cells, jnp.abs(predicted.astype(jnp.float32) - target), 0.0)
    return errors.sum(), cells.sum().astype(jnp.float32)
