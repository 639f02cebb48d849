"""Encoders and a fusion of one product each, for objectives of which only the decoder matters."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.config import spec
from taichu_jax.models.layers import Encoded
from tests.batches import BANDS, VOCAB

WIDTH, PARTS = 16, 4


class Words(nn.Module):
    @nn.compact
    def __call__(self, tokens, mask):
        table = self.param("token_embedding", nn.initializers.normal(1.0), (VOCAB, WIDTH))
        return Encoded(tokens=table[tokens], mask=mask)


class Quarters(nn.Module):
    """Four rows of a picture."""

    @nn.compact
    def __call__(self, images):
        rows = images.reshape(len(images), PARTS, -1)
        return Encoded(tokens=nn.Dense(WIDTH)(rows), mask=jnp.ones(rows.shape[:2], bool))


class Frames(nn.Module):
    @nn.compact
    def __call__(self, mel, lengths):
        real = jnp.arange(mel.shape[1]) < lengths[:, None]
        return Encoded(tokens=nn.Dense(WIDTH)(mel.reshape(*mel.shape[:2], BANDS)), mask=real)


class Beside(nn.Module):
    """[CLS] and all tokens side by side; nothing is mixed."""

    @nn.compact
    def __call__(self, text, image, audio):
        cls = self.param("cls_token", nn.initializers.normal(1.0), (WIDTH,))
        parts = (text, image, audio)
        cls = jnp.broadcast_to(cls, (len(text.mask), 1, WIDTH)).astype(text.tokens.dtype)
        mask = jnp.concatenate([jnp.ones(cls.shape[:2], bool), *(p.mask for p in parts)], 1)
        return Encoded(tokens=jnp.concatenate([cls, *(p.tokens for p in parts)], 1), mask=mask)


NETWORKS = {
    "text": spec(Words),
    "image": spec(Quarters),
    "audio": spec(Frames),
    "fusion": spec(Beside),
}
