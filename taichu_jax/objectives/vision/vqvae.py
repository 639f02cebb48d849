"""Pictures as discrete codes: VQ-VAE (arXiv 1711.00937).

    L = |x - y|^2 / v + beta |z - sg(e)|^2,      y = decoder(z + sg(e - z)),    e = nearest entry to z

x are pixels of [-1, 1], y their reconstruction, z the encoder's latents; all norms are means over values.
The codebook follows the latents by moving averages (the paper's appendix A.1), or, with `decay=None`,
by the gradient of |sg(z) - e|^2 (equation 3).

Batch: `image` float32 [B, H, W, 3] in [0, 1]; with `present`, that field, bool [B]: pictures that are
absent neither count nor move the codebook.
Networks: `tokeniser`, a VQTokeniser; its `codes` and `decode` are what a run is for.
Defaults: beta 0.25 (paper), decay 0.99 (appendix A.1). The paper writes norms as sums; means are those
of the authors' code (Sonnet), which divides the error by the variance of the data, v here. OPT's
tokeniser has 8192 codes of width 256, four residual blocks of width 256 and pictures shrunk by 8.
Nothing is revived in the paper; `revive=1.0` is Jukebox's threshold.
Checked against: every term in NumPy loops; a NumPy loop over several optimiser steps for the codebook;
exact statistics of revived entries; gradients reach encoder and decoder and leave the codebook alone.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, mean_of
from taichu_jax.objectives.vision.vector_quantised import VectorQuantised
from taichu_jax.ops.patches import centred


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQVAE(VectorQuantised):
    """See the module's docstring.

    Attributes:
      variance: v, of all pixel values of [-1, 1] of the data; 1 leaves the error as it is.
    """

    variance: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.variance <= 0:
            raise UserError(f"variance={self.variance}: must be above 0")

    def loss(self, nets, batch, memory, rng):
        done = self.quantise(nets, batch, memory, rng)
        pixels = done.made.pixels.astype(jnp.float32)
        errors = jnp.square(pixels - centred(done.images)).mean((1, 2, 3))
        error = mean_of(jnp.where(done.present, errors, 0.0).sum(), done.present.sum())
        metrics = {"reconstruction": (error, jnp.ones(())), **done.metrics}
        return Loss(error / self.variance + done.penalty, metrics, done.memory)
