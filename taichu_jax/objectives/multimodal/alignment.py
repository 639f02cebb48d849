"""Contrastive alignment of pictures, words and voices in one space (CLIP, arXiv 2103.00020).

For every pair of modalities (a, b), over all examples i of the global batch that have both:

    L_ab = 1/2 [ -log exp(s a_i.b_i) / sum_j exp(s a_i.b_j)  +  the same with a and b exchanged ]

where j runs over all examples that have b, whether or not they have a; L is the mean over the pairs.
s is the learned inverse temperature. Examples of the same `concept` (the same picture, or two
pictures with the same description) are not negatives of each other.

Batch: see `Encoders`; `concept` int32 [B].
Networks: the encoders, their projections, `scale`.
Defaults: initial temperature 0.07 and clamp at 100 from the paper, section 2.5; leaving out equal
concepts is ours.
Checked against: the formula in NumPy loops; one device equals eight (global negatives).
"""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp

from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.ops.contrastive import info_nce
from taichu_jax.ops.monitors import feature_std


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveAlignment(Objective):
    """See the module's docstring.

    Attributes:
      encoders: names of the networks.
      scale: the network that holds the inverse temperature.
      modalities: two or three of text, image, audio.
    """

    encoders: Encoders = Encoders()
    scale: str = "scale"
    modalities: tuple[str, ...] = MODALITIES

    def loss(self, nets, batch, memory, rng):
        encoded = self.encoders.encode(nets, batch, modalities=self.modalities)
        embeddings = {k: self.encoders.embed(nets, k, v) for k, v in encoded.items()}
        scale = nets(self.scale).astype(jnp.float32)
        concept = batch["concept"]
        same = concept[:, None] == concept[None]
        loss, metrics = 0.0, {"logit_scale": (scale, jnp.ones(()))}
        pairs = list(itertools.combinations(self.modalities, 2))
        for a, b in pairs:
            scores = scale * embeddings[a] @ embeddings[b].T
            has_a, has_b = batch[f"has_{a}"], batch[f"has_{b}"]
            forward, right_ab, count = info_nce(scores, has_a, has_b, same)
            backward, right_ba, _ = info_nce(scores.T, has_b, has_a, same)
            loss += mean_of(0.5 * (forward + backward), count) / len(pairs)
            metrics[f"{a}_to_{b}_accuracy"] = (right_ab, count)
            metrics[f"{b}_to_{a}_accuracy"] = (right_ba, count)
        for name in self.modalities:
            metrics[f"{name}_feature_std"] = feature_std(embeddings[name], batch[f"has_{name}"])
        return Loss(loss, metrics)
