"""One product for each encoder and for the tokeniser: only the losses and the fusion matter here."""

import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.config import spec
from taichu_jax.models.layers import Encoded, Linear
from taichu_jax.models.pair_fusion import PairFusion
from taichu_jax.objectives.multimodal.flava_masked_pairs import FLAVAMaskedPairs
from taichu_jax.ops.patches import patchify
from tests import batches
from tests.case import Case

WIDTH, PATCH, CODES = 8, 4, 6


class Words(nn.Module):
    @nn.compact
    def __call__(self, tokens, mask):
        table = self.param("token_embedding", nn.initializers.normal(1.0), (batches.VOCAB, WIDTH))
        return Encoded(tokens=table[tokens], mask=mask, layers=(table[tokens],))


class Patches(nn.Module):
    """Without a class token."""

    @nn.compact
    def __call__(self, images, mask):
        x = nn.Dense(WIDTH)(patchify(images, PATCH))
        hidden = self.param("mask_token", nn.initializers.normal(1.0), (WIDTH,)).astype(x.dtype)
        x = jnp.where(mask[..., None], hidden, x)
        return Encoded(tokens=x, mask=jnp.ones(mask.shape, bool), layers=(x,))


class Codes(nn.Module):
    entries: int = CODES

    @nn.compact
    def codes(self, images):
        side = images.shape[1] // PATCH
        scores = nn.Dense(self.entries)(patchify(images, PATCH))
        return scores.argmax(-1).reshape(-1, side, side)


CASE = Case(
    networks={
        "text": spec(Words),
        "image": spec(Patches),
        "fusion": spec(PairFusion, width=WIDTH, depth=1, heads=2),
        "itm_head": spec(Linear, features=2),
        "mmm_text_head": spec(Linear, features=batches.VOCAB),
        "mmm_image_head": spec(Linear, features=CODES),
        "image_tokeniser": spec(Codes),
    },
    objective=spec(
        FLAVAMaskedPairs,
        source="stream",
        vocab_size=batches.VOCAB,
        patch=PATCH,
        least=3,
        other=0.5,
    ),
    batch=batches.triplets(),
    frozen=("image_tokeniser",),
)
