"""What a number is worth: the raw input, read by the same heads as an encoder's states.

speech   log-mel frames, not normalised; pooled: their mean and deviation over time
image    the pixels of a patch; pooled: the picture at 16 x 16 pixels
text     which character stands there; pooled: how often each occurs (a bag of characters)

They are `Encoder`s of one layer without parameters, so that whatever is computed from an encoder is
computed from them by the same code.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from taichu_jax.data.audio import HOP, RATE
from taichu_jax.data.items import Damaged
from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.ops.lengths import within
from taichu_jax.ops.patches import patchify
from taichu_jax.probing.encoder import Encoder, means
from taichu_jax.probing.examples import Examples
from taichu_jax.probing.readers import PictureReader, TextReader, WaveReader

NAMES = {"speech": "log-mel", "image": "pixels", "text": "bag of characters"}
SIDE = 16  # of a pooled picture
CHARACTERS = 511  # the commonest of the training texts; others are one more
LONGEST = 256  # characters of a text


def raw(encoder: Encoder, examples: Examples, train: Sequence[int]) -> Encoder:
    """The baseline that reads what `encoder` reads.

    Args:
      train: rows whose texts may be looked at.
    """
    if isinstance(encoder.reader, WaveReader):
        return _log_mel(encoder.reader)
    if isinstance(encoder.reader, PictureReader):
        return _pixels(encoder.reader, patch_of(encoder))
    assert isinstance(encoder.reader, TextReader)
    return _characters(encoder.reader, examples, train)


def patch_of(encoder: Encoder) -> int:
    """The side of an encoder's patches in pixels.

    Raises:
      UserError: its states do not lie on a square grid.
    """
    size, (_, count) = encoder.reader.shapes()[0][0][0], encoder.shapes.mask.shape
    rows = round(encoder.shapes.rate)
    if not 0 < rows**2 <= count or size % rows:
        raise UserError(
            f"network {encoder.name!r}: {count} states of pictures of {size} pixels at {rows} rows do "
            "not lie on a square grid"
        )
    return size // rows


def _log_mel(reader: WaveReader) -> Encoder:
    part = dataclasses.replace(reader.part, form="mel", normalise=False)

    def hidden_states(params, inputs):
        del params
        mel, lengths = inputs
        return Encoded(tokens=mel, mask=within(lengths, mel.shape[1]), rate=RATE / HOP)

    return _encoder("speech", WaveReader(part), hidden_states, _moments)


def _moments(encoded: Encoded, inputs) -> tuple[jax.Array, ...]:
    del inputs
    weight = encoded.mask[..., None]
    count = jnp.maximum(weight.sum(1), 1)
    mean = jnp.where(weight, encoded.tokens, 0).sum(1) / count
    spread = jnp.where(weight, jnp.square(encoded.tokens - mean[:, None]), 0).sum(1) / count
    return (jnp.concatenate([mean, jnp.sqrt(spread)], -1),)


def _pixels(reader: PictureReader, patch: int) -> Encoder:
    def hidden_states(params, inputs):
        del params
        patches = patchify(inputs[0], patch)
        rows = inputs[0].shape[1] // patch
        return Encoded(tokens=patches, mask=jnp.ones(patches.shape[:2], bool), rate=float(rows))

    def small(encoded, inputs):
        del encoded
        images = inputs[0]
        side = min(SIDE, images.shape[1])
        shape = (len(images), side, side, 3)
        return (jax.image.resize(images, shape, "linear").reshape(len(images), -1),)

    return _encoder("image", reader, hidden_states, small)


def _characters(reader: TextReader, examples: Examples, train: Sequence[int]) -> Encoder:
    counts: collections.Counter = collections.Counter()
    for i in train:
        try:
            counts.update("".join(examples.words(i)[0]) if reader.tagged else examples.text(i))
        except Damaged:  # left out, and named, where examples are read
            continue
    number = {c: n + 1 for n, (c, _) in enumerate(counts.most_common(CHARACTERS))}

    def encode(words):
        ids = [number.get(c, 0) for word in words for c in word]
        return ids, [n for n, word in enumerate(words) for _ in word]

    def hidden_states(params, inputs):
        del params
        ids, mask, _ = inputs
        return Encoded(tokens=jax.nn.one_hot(ids, len(number) + 1), mask=mask)

    return _encoder(
        "text", dataclasses.replace(reader, encode=encode, length=LONGEST), hidden_states, means
    )


def _encoder(modality, reader, hidden_states, pool) -> Encoder:
    return Encoder(NAMES[modality], modality, reader, hidden_states, {}, dict, pool)
