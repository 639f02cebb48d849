"""A tokeniser that an adversary judges: VQGAN (arXiv 2012.09841).

    L = |x - y| + p d(x, y) + beta |z - sg(e)|^2 + l(t) lambda L_G + l(t) L_D
    L_G = - mean D(y),    L_D = 1/2 mean max(0, 1 - D(x)) + 1/2 mean max(0, 1 + D(sg(y)))
    lambda = w |grad_K (|x - y| + p d)| / (|grad_K L_G| + delta),    K the decoder's last kernel

x are pixels of [-1, 1], y their reconstruction; z, e and beta are VQ-VAE's (vqvae.py); D are the
scores of patches; l(t) is 0 before the step `start` and 1 from there. L_G is differentiated through
the discriminator but not into it, L_D not into the tokeniser: one step, two players.

d compares the hidden states of x and y in another network (ops/perceptual.py). The paper has VGG with
learnt weights on its channels (LPIPS); here it is whatever image encoder the run has under the name
`perceptual`, with the weights of that moment, which this loss does not change. An untrained one gives
random features: let another objective train it, or take it from a run and keep it,

    config.restore = {"image": "runs/mae_stamps"},   Rule(pattern="^image/", rate=0.0)

Batch: `image` float32 [B, H, W, 3] in [0, 1]; with `present`, that field, bool [B]: pictures that are
absent do not count, to neither player.
Networks: `tokeniser`, a VQTokeniser; `discriminator`, a PatchDiscriminator; `perceptual`, an image
encoder that returns `Encoded`, without dropout.
Defaults: beta 0.25, w = 0.8 and the hinge from the authors' code and recipes (the paper writes the
logarithmic game); delta 1e-6 from the paper's equation 7, 1e-4 in the code. The code learns the
codebook by gradient, `decay=None`; its first releases had beta on the other term. How late the
discriminator starts differs from recipe to recipe; here it plays from the first step by default.
Checked against: every term in NumPy loops; lambda against the gradients of both losses at the real
kernel; each player's gradient is that of its own losses alone.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.models.image_tokeniser import LAST
from taichu_jax.objectives.base import Loss, mean_of
from taichu_jax.objectives.vision.vector_quantised import VectorQuantised
from taichu_jax.ops.gan import adaptive_weight, example_mean, hinge, last_layer_norm
from taichu_jax.ops.patches import centred, uncentred
from taichu_jax.ops.perceptual import feature_distance


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQGAN(VectorQuantised):
    """See the module's docstring.

    Attributes:
      discriminator: the network's name.
      perceptual: name of the image encoder whose states are compared; None compares pixels only.
      perceptual_weight: p.
      adversary: w.
      adaptive: lambda is as above; else it is w.
      delta: of lambda's denominator.
      start: step from which on the discriminator plays.
    """

    discriminator: str = "discriminator"
    perceptual: str | None = None
    perceptual_weight: float = 1.0
    adversary: float = 0.8
    adaptive: bool = True
    delta: float = 1e-6
    start: int = 0

    def loss(self, nets, batch, memory, rng):
        done = self.quantise(nets, batch, memory, rng)
        real, pixels = centred(done.images), done.made.pixels.astype(jnp.float32)

        def mean(values):
            return mean_of(jnp.where(done.present, values, 0.0).sum(), done.present.sum())

        def likeness(pixels):
            absolute = mean(example_mean(jnp.abs(pixels - real)))
            if self.perceptual is None:
                return absolute, {"reconstruction": absolute}
            seen = nets.frozen(self.perceptual, done.images).layers
            drawn = nets.frozen(self.perceptual, uncentred(pixels)).layers
            distance = mean(feature_distance(jax.lax.stop_gradient(seen), drawn))
            parts = {"reconstruction": absolute, "perceptual": distance}
            return absolute + self.perceptual_weight * distance, parts

        def deceit(pixels):
            return mean(-example_mean(nets.frozen(self.discriminator, pixels)))

        reconstruction, parts = likeness(pixels)
        generator = deceit(pixels)
        judged = nets(self.discriminator, real)
        discriminator = mean(hinge(judged, nets(self.discriminator, jax.lax.stop_gradient(pixels))))
        plays = (nets.step >= self.start).astype(jnp.float32)
        weight = plays * self.adversary
        if self.adaptive:
            still = jax.lax.stop_gradient(done.made._replace(pixels=pixels))
            towards, against = (
                last_layer_norm(still.features, jax.grad(part)(still.pixels), LAST)
                for part in (lambda p: likeness(p)[0], deceit)
            )
            weight *= adaptive_weight(towards, against, self.delta)
        one = jnp.ones(())
        metrics = {
            **{name: (part, one) for name, part in parts.items()},
            "generator": (generator, one),
            "discriminator": (discriminator, one),
            "adversary_weight": (weight, one),
            "scores_real": (mean(example_mean(judged)), one),
            "scores_drawn": (-generator, one),
            **done.metrics,
        }
        value = reconstruction + done.penalty + weight * generator + plays * discriminator
        return Loss(value, metrics, done.memory)
