"""Blocks of hidden patches and the codes that are predicted there (BEiT, FLAVA); no objective itself.

The codes are those that a frozen tokeniser, a network with the field `entries` and the method `codes`
(models/image_tokeniser.py), gives the whole picture.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Nets
from taichu_jax.ops.block_masking import block_mask
from taichu_jax.ops.random import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchCodes:
    """How patches are hidden, and what is predicted there.

    Attributes:
      owner: how errors name the objective.
      patch: side of a patch of the encoder, in pixels.
      tokeniser: the network's name.
      rate: the largest share of the patches that is hidden.
      least: patches of the smallest block.
      aspect: of the widest block, height to width; that of the tallest is 1 / aspect.
      token_scale: pictures are resized by this factor for the tokeniser.
    """

    owner: str
    patch: int
    tokeniser: str
    rate: float
    least: int
    aspect: float
    token_scale: float

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise UserError(f"rate={self.rate}: must be above 0 and at most 1")
        if not 0 < self.aspect <= 1:
            raise UserError(f"aspect={self.aspect}: must be above 0 and at most 1")
        if self.least < 1:
            raise UserError(f"least={self.least}: must be 1 or more")

    def mask(self, rng: jax.Array, batch: int, rows: int, columns: int) -> jax.Array:
        """bool [batch, rows * columns], the hidden patches."""
        most = int(self.rate * rows * columns)
        if self.least > most:
            raise UserError(
                f"least={self.least}: a block of so many patches is more than rate={self.rate} of"
                f" {rows} x {columns}; must be at most {most}"
            )
        return block_mask(
            fold_name(rng, "patches"),
            batch,
            rows,
            columns,
            most=most,
            least=self.least,
            aspect=self.aspect,
        )

    def codes(self, nets: Nets, images: jax.Array) -> jax.Array:
        """int32 [B, rows * columns] of images [B, H, W, 3] in [0, 1]."""
        batch, height, width, colours = images.shape
        rows, columns = height // self.patch, width // self.patch
        if self.token_scale != 1.0:
            size = round(height * self.token_scale), round(width * self.token_scale)
            images = jax.image.resize(images, (batch, *size, colours), "lanczos3")
            images = jnp.clip(images, 0.0, 1.0)
        codes = nets.frozen(self.tokeniser, images, method="codes")
        if codes.shape[1:] != (rows, columns):
            raise UserError(
                f"{self.owner}(patch={self.patch}, token_scale={self.token_scale}): "
                f"{rows} x {columns} patches, but network {self.tokeniser!r} gives "
                f"{codes.shape[1]} x {codes.shape[2]} codes"
            )
        return codes.reshape(batch, -1)

    def scores(self, nets: Nets, head: str, states: jax.Array) -> jax.Array:
        """What `head` makes of states [..., D]: [..., codes], as many as the tokeniser has."""
        scores = nets(head, states)
        entries = nets.module(self.tokeniser).entries
        if scores.shape[-1] != entries:
            raise UserError(
                f"network {head!r}: scores {scores.shape[-1]} codes, but {self.tokeniser!r} has "
                f"{entries}; must be the same"
            )
        return scores
