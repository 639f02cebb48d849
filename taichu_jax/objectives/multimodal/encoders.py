"""How the tri-modal objectives turn a batch into tokens; not an objective itself."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from taichu_jax.models.fusion import MODALITIES
from taichu_jax.models.layers import Encoded, masked_mean
from taichu_jax.objectives.base import Nets
from taichu_jax.ops.normalise import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoders:
    """Names of the networks: one encoder per modality, their projections, and the fusion.

    The fields of a batch (rows may lack any modality, never need to have all):
      `text` int32 [B, L], `text_mask` bool [B, L], `has_text` bool [B];
      `image` float32 [B, H, W, 3] in [0, 1], `has_image` bool [B];
      `mel` float32 [B, F, M] log-mel, `mel_lengths` int32 [B] frames, `has_audio` bool [B].
    """

    text: str = "text"
    image: str = "image"
    audio: str = "audio"
    fusion: str = "fusion"
    projection: str = "{modality}_projection"

    def encode(
        self,
        nets: Nets,
        batch: Mapping[str, jax.Array],
        *,
        modalities: tuple[str, ...] = MODALITIES,
        text: jax.Array | None = None,
        image_mask: jax.Array | None = None,
        audio_mask: jax.Array | None = None,
    ) -> dict[str, Encoded]:
        """Tokens by modality; the mask is false throughout where a row lacks the modality.

        Args:
          text: token ids to read in place of the batch's own (corrupted ones).
          image_mask, audio_mask: bool [B, N], positions to hide from their encoder.
        """
        masks = {"image": image_mask, "audio": audio_mask}
        encoded = {}
        for name in modalities:
            if name == "text":
                inputs = (batch["text"] if text is None else text, batch["text_mask"])
                encoded[name] = nets(self.text, *inputs)
            elif name == "image":
                hide: dict[str, Any] = {} if masks[name] is None else {"mask": masks[name]}
                encoded[name] = nets(self.image, batch["image"], **hide)
            else:
                hide = {} if masks[name] is None else {"mask": masks[name]}
                encoded[name] = nets(self.audio, batch["mel"], batch["mel_lengths"], **hide)
            present = batch[f"has_{name}"][:, None]
            encoded[name] = encoded[name].replace(mask=encoded[name].mask & present)
        return encoded

    def embed(self, nets: Nets, name: str, encoded: Encoded) -> jax.Array:
        """The retrieval embedding: projected mean of the tokens, L2 norm 1, float32 [B, E]."""
        pooled = masked_mean(encoded.tokens, encoded.mask)
        projected = nets(self.projection.format(modality=name), pooled).astype(jnp.float32)
        square = jnp.square(projected).sum(-1, keepdims=True)
        return projected * jax.lax.rsqrt(jnp.maximum(square, 1e-12))

    def fuse(self, nets: Nets, encoded: Mapping[str, Encoded]) -> Encoded:
        """The cross-modal encoder's states over whatever is given; tokens[:, 0] is [CLS]."""
        # Encoders may keep many hidden layers; the fusion reads the last one.
        plain: dict[str, Any] = {
            k: Encoded(tokens=v.tokens, mask=v.mask) for k, v in encoded.items()
        }
        return nets(self.fusion, **plain)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTokenEncoders(Encoders):
    """Encoders of which the first token knows the whole (ViT with `cls`, BERT, FLAVA)."""

    def embed(self, nets: Nets, name: str, encoded: Encoded) -> jax.Array:
        """The retrieval embedding: projected first token, L2 norm 1, float32 [B, E]."""
        return unit(nets(self.projection.format(modality=name), encoded.tokens[:, 0]))


def present(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Modality -> bool [B]."""
    return {name: batch[f"has_{name}"] for name in MODALITIES}


def first_rows(fields: Mapping[str, Any], share: float) -> Mapping[str, Any]:
    """The first `share` of the examples of every array: rows come shuffled, so it is a fair sample."""
    # Copied rather than made anew, because a batch knows how to name the field that it lacks.
    rows: Any = copy.copy(fields)
    for name, value in fields.items():
        rows[name] = jax.tree.map(lambda x: x[: max(1, round(share * x.shape[0]))], value)
    return rows
