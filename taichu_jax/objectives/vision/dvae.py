"""Pictures as discrete codes through a relaxation: the dVAE of DALL-E (arXiv 2102.12092).

    L = mean_values( -ln p(x | y) ) + beta (h w) / (H W 3) mean_places( KL(q || uniform) )
    y = softmax((logits + Gumbel noise) / tau),    KL(q || uniform) = sum_v q_v (ln q_v + ln V)

q is the softmax of the logits at each of the h x w places, y what the decoder reads. This is the
negative evidence lower bound with the weight beta, divided by the H W 3 values of a picture: shrunk
by 8, the mean divergence of a place has the weight beta / 192, as the paper says (appendix A.2). The
divergence is that of the categorical q, not of the relaxed sample, which the paper leaves open.

Batch: `image` float32 [B, H, W, 3] in [0, 1]; with `present`, that field, bool [B]: pictures that are
absent do not count.
Networks: `tokeniser`, a GumbelTokeniser, with `scales` for the logit-Laplace density.
Defaults: tau from 1 to 1/16 along a cosine in 150,000 updates, beta from 0 to 6.6 in 5,000, here along a
cosine too, and the logit-Laplace density (appendix A.2 and A.3). 'mse' is (x - y)^2 of pixels in [-1, 1].
The density's own constants count, so the loss can be negative.
Checked against: density, divergence and relaxation in NumPy loops given the same noise; the density sums
to 1 over the pixel's range; gradients reach encoder, codebook and decoder.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.logit_laplace import negative_log_density
from taichu_jax.ops.monitors import perplexity
from taichu_jax.ops.patches import centred
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import Cosine, Schedule, value_at

RECONSTRUCTIONS = ("logit_laplace", "mse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteVAE(Objective):
    """See the module's docstring.

    Attributes:
      tokeniser: the network's name.
      image: the batch field of the pictures.
      present: the batch field that says which pictures are there; None if all are.
      temperature: tau, of the relaxation.
      divergence: beta, weight of the divergence as in the paper, for sums over places and values.
      reconstruction: 'logit_laplace' or 'mse'.
    """

    tokeniser: str = "image_tokeniser"
    image: str = "image"
    present: str | None = None
    temperature: float | Schedule = Cosine(start=1.0, end=1 / 16, steps=150_000)
    divergence: float | Schedule = Cosine(start=0.0, end=6.6, steps=5_000)
    reconstruction: str = "logit_laplace"

    def __post_init__(self):
        if self.reconstruction not in RECONSTRUCTIONS:
            wrong = f"reconstruction={self.reconstruction!r}"
            raise UserError(f"{wrong}; {choices(self.reconstruction, RECONSTRUCTIONS)}")

    def loss(self, nets, batch, memory, rng):
        images = batch[self.image].astype(jnp.float32)
        present = batch[self.present] if self.present else jnp.ones(len(images), bool)
        temperature = value_at(self.temperature, nets.step)
        logits, outputs = nets(self.tokeniser, images, fold_name(rng, "gumbel"), temperature)
        wanted = 6 if self.reconstruction == "logit_laplace" else 3
        if outputs.shape[-1] != wanted:
            raise UserError(
                f"DiscreteVAE(reconstruction={self.reconstruction!r}): network {self.tokeniser!r} "
                f"gives {outputs.shape[-1]} values per pixel, wanted {wanted}; its `scales` decides"
            )
        outputs = outputs.astype(jnp.float32)
        if self.reconstruction == "logit_laplace":
            errors = negative_log_density(images, *jnp.split(outputs, 2, axis=-1))
        else:
            errors = jnp.square(outputs - centred(images))
        error = _mean(errors.mean((1, 2, 3)), present)

        log_q = jax.nn.log_softmax(logits.astype(jnp.float32))
        codes = logits.shape[-1]
        divergences = (jnp.exp(log_q) * (log_q + math.log(codes))).sum(-1)
        divergence = _mean(divergences.mean((1, 2)), present)
        share = divergences[0].size / images[0].size  # places per value
        loss = error + value_at(self.divergence, nets.step) * share * divergence

        where = jnp.broadcast_to(present[:, None], (len(images), divergences[0].size))
        shares = code_shares(logits.argmax(-1).reshape(*where.shape, 1), where, codes)
        one = jnp.ones(())
        metrics = {
            "reconstruction": (error, one),
            "divergence": (divergence, one),
            "temperature": (temperature, one),
            "code_perplexity": perplexity(shares),
            "codes_unused": ((shares == 0).mean(), one),
        }
        return Loss(loss, metrics)


def _mean(values: jax.Array, where: jax.Array) -> jax.Array:
    return mean_of(jnp.where(where, values, 0.0).sum(), where.sum())
