"""Codes of hidden patches: BEiT (arXiv 2106.08254).

    L = - 1/|M| sum_{i in M} log p(z_i | x with M hidden)

M are the hidden patches of all pictures, laid in blocks (ops/block_masking.py), z_i the code that a
tokeniser, which stays as it is, gives the whole picture at patch i.

Batch: `image` float32 [B, H, W, 3] in [0, 1]; with `present`, that field, bool [B]: pictures that are
absent do not count.
Networks: `encoder`, an image encoder that takes `mask`, with or without a class token; `head`, from
states to scores of all codes; `tokeniser`, with the method `codes` (models/image_tokeniser.py), which was
trained before and of which nothing is learnt here:

    config.restore.image_tokeniser = "runs/dvae_stamps"    Rule(pattern="^image_tokeniser/", rate=0.0)

Defaults: 40 % hidden in blocks of at least 16 patches, aspect 0.3 (paper, section 2.3; its code hides
75 of 196). As in the code a block that would hide too many is drawn again and ln r is uniform; the paper
lets the last block pass and has r uniform. The paper's tokeniser reads 112 pixels where the encoder reads
224 in patches of 16: that is token_scale=0.5 with codes of 8 pixels, resized here with a Lanczos filter.
Checked against: the formula in NumPy loops given the same codes and mask; the mask against NumPy loops
given the same draws, and its statistics; loss and gradients of transformers' model with the same weights,
codes and mask.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.objectives.vision.patch_codes import PatchCodes
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.monitors import feature_std, perplexity


@dataclasses.dataclass(frozen=True, kw_only=True)
class BEiT(Objective):
    """See the module's docstring.

    Attributes:
      patch: side of a patch of the encoder, in pixels.
      encoder, head, tokeniser: the networks' names.
      image: the batch field of the pictures.
      present: the batch field that says which pictures are there; None if all are.
      rate: the largest share of the patches that is hidden.
      least: patches of the smallest block.
      aspect: of the widest block, height to width; that of the tallest is 1 / aspect.
      token_scale: pictures are resized by this factor for the tokeniser.
    """

    patch: int = 16
    encoder: str = "image"
    head: str = "beit_head"
    tokeniser: str = "image_tokeniser"
    image: str = "image"
    present: str | None = None
    rate: float = 0.4
    least: int = 16
    aspect: float = 0.3
    token_scale: float = 1.0

    def __post_init__(self):
        self._patches()

    def loss(self, nets, batch, memory, rng):
        images = batch[self.image]
        present = batch[self.present] if self.present else jnp.ones(len(images), bool)
        rows, columns = images.shape[1] // self.patch, images.shape[2] // self.patch
        codes = self._patches().codes(nets, images)
        masked = self.mask(rng, len(images), rows, columns)
        states = nets(self.encoder, images, mask=masked)
        first = states.tokens.shape[1] - rows * columns  # class token
        patches = states.tokens[:, first:]
        scores = self._patches().scores(nets, self.head, patches)
        where = masked & present[:, None]
        total, right, count = cross_entropy(scores, codes, where)
        there = jnp.broadcast_to(present[:, None], codes.shape)
        # not by one-hot codes, which of 8,192 for 196 patches would be larger than the network's states
        counts = jnp.zeros(scores.shape[-1]).at[codes].add(there)
        shares = counts / jnp.maximum(there.sum(), 1)
        metrics = {
            "accuracy": (right, count),
            "masked_share": counted(masked, present[:, None]),
            "code_perplexity": perplexity(shares),
            "feature_std": feature_std(patches, there),
        }
        return Loss(mean_of(total, count), metrics)

    def mask(self, rng: jax.Array, batch: int, rows: int, columns: int) -> jax.Array:
        """bool [batch, rows * columns], the hidden patches."""
        return self._patches().mask(rng, batch, rows, columns)

    def _patches(self) -> PatchCodes:
        return PatchCodes(
            owner="BEiT",
            patch=self.patch,
            tokeniser=self.tokeniser,
            rate=self.rate,
            least=self.least,
            aspect=self.aspect,
            token_scale=self.token_scale,
        )
