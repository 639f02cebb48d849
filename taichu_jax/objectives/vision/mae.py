"""Masked autoencoder: MAE (arXiv 2111.06377).

    L = 1/|M| sum_{i in M} mean_j (y_ij - x_ij)^2,     x_i = (p_i - mean(p_i)) / sqrt(var(p_i) + 1e-6)

M are the masked patches of all pictures, p_i the pixels of patch i and y_i the prediction. The
encoder sees the kept patches only; round(N (1 - rate)) of the N patches stay in every picture, a new
uniform choice at every step.

Batch: `image` float32 [B, H, W, 3] in [0, 1]; with `present`, that field, bool [B]: pictures that are
absent do not count.
Networks: `encoder`, a ViT that takes `keep`; `decoder`, an MAEDecoder with the encoder's patch and cls.
Defaults: rate 0.75 (paper, table 1a), normalised pixels (table 1d). The released code takes the
unbiased variance and 1e-6, keeps int(N (1 - rate)) patches, and scales pixels with ImageNet's mean
and deviation; here they are scaled to [-1, 1], which matters only without normalisation.
Checked against: the formula in NumPy loops with the same kept patches, exact mask statistics.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.patches import (
    centred,
    keep_some,
    patchify,
    standardised,
    uncentred,
    unpatchify,
)
from taichu_jax.ops.random import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoder(Objective):
    """See the module's docstring.

    Attributes:
      patch: side of a patch, in pixels; that of both networks.
      encoder: the image encoder's name.
      decoder: the pixel decoder's name.
      image: the batch field of the pictures.
      present: the batch field that says which pictures are there; None if all are.
      rate: share of the patches that are masked.
      norm_pixels: the targets are standardised within each patch.
    """

    patch: int = 8
    encoder: str = "image"
    decoder: str = "image_decoder"
    image: str = "image"
    present: str | None = None
    rate: float = 0.75
    norm_pixels: bool = True

    def loss(self, nets, batch, memory, rng):
        images = batch[self.image]
        present = batch[self.present] if self.present else jnp.ones(len(images), bool)
        states, predictions, masked = self._predict(nets, images, rng)
        targets, *_ = self._targets(images)
        errors = jnp.square(predictions - targets).mean(-1)
        counts = masked & present[:, None]
        loss = mean_of(jnp.where(counts, errors, 0.0).sum(), counts.sum())
        spread = feature_std(states.tokens, states.mask & present[:, None])
        return Loss(loss, {"feature_std": spread})

    def reconstruct(self, nets, images: jax.Array, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(masked input, reconstruction) of a picture report, both [B, H, W, 3] in about [0, 1].

        Masked patches are grey in the first and predicted in the second; kept patches are the input's.
        With `norm_pixels` the networks know a patch only up to its mean and deviation, so these are
        taken from the true patch: the second picture is better than what they could draw alone.
        """
        _, predictions, masked = self._predict(nets, images, rng)
        _, mean, deviation = self._targets(images)
        true = patchify(images, self.patch).astype(jnp.float32)
        drawn = uncentred(predictions * deviation + mean)
        rows = images.shape[1] // self.patch

        def picture(patches):
            chosen = jnp.where(masked[..., None], patches, true)
            return unpatchify(chosen, self.patch, rows)

        return picture(jnp.full_like(true, 0.5)), picture(drawn)

    def _predict(self, nets, images, rng):
        count = (images.shape[1] // self.patch) * (images.shape[2] // self.patch)
        kept = max(1, round(count * (1 - self.rate)))
        keep, masked = keep_some(fold_name(rng, "patches"), len(images), count, kept)
        states = nets(self.encoder, images, keep=keep)
        predictions = nets(self.decoder, states.tokens, keep)
        expected = (len(images), count, 3 * self.patch**2)
        if states.rate != images.shape[1] // self.patch or predictions.shape != expected:
            raise UserError(
                f"MaskedAutoencoder(patch={self.patch}): networks {self.encoder!r} and "
                f"{self.decoder!r} read and write other patches; the decoder gives "
                f"{predictions.shape}, wanted {expected}"
            )
        return states, predictions.astype(jnp.float32), masked

    def _targets(self, images):
        """(targets [B, N, values], and the mean and deviation that turn them into pixels)."""
        patches = patchify(centred(images.astype(jnp.float32)), self.patch)
        if self.norm_pixels:
            return standardised(patches)
        return patches, jnp.zeros(()), jnp.ones(())
