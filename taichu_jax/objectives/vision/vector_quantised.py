"""What objectives that train a `VQTokeniser` have in common: its codebook.

The codebook is a parameter of the tokeniser, so that whatever opens a run reads it with the rest. With
`decay` no gradient reaches it: it follows from moving averages that are the objective's memory
(ops/ema_codebook.py), and the step puts it in its place after the update (`Objective.assigned`), exactly
and whatever the optimiser. Without, it learns by gradient, |sg(z) - e|^2.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.models.image_tokeniser import Tokenised
from taichu_jax.objectives.base import Metric, Objective, mean_of
from taichu_jax.ops.codebooks import code_shares
from taichu_jax.ops.ema_codebook import CodebookAverages, follow, no_averages, revive
from taichu_jax.ops.monitors import feature_std, perplexity
from taichu_jax.ops.random import fold_name


class Quantisation(NamedTuple):
    """What a step made of a batch's pictures.

    Attributes:
      images: float32 [B, H, W, 3] in [0, 1].
      present: bool [B].
      made: what the tokeniser made of them.
      penalty: the loss of latents and codebook, without the reconstruction.
      memory: the codebook's averages after the step, or None.
      metrics: of the codes.
    """

    images: jax.Array
    present: jax.Array
    made: Tokenised
    penalty: jax.Array
    memory: CodebookAverages | None
    metrics: dict[str, Metric]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorQuantised(Objective):
    """See the module's docstring.

    Attributes:
      tokeniser: the network's name, a VQTokeniser.
      image: the batch field of the pictures.
      present: the batch field that says which pictures are there; None if all are.
      entries, dim: of the codebook, as in the network.
      commitment: weight of |z - sg(e)|^2, a mean over channels; beta.
      decay: of the codebook's averages; None learns the codebook by gradient instead.
      revive: entries that fewer vectors than this choose in a step, on average, move to a vector of the
        batch; 0 leaves them. Needs `decay`.
    """

    tokeniser: str = "image_tokeniser"
    image: str = "image"
    present: str | None = None
    entries: int = 512
    dim: int = 64
    commitment: float = 0.25
    decay: float | None = 0.99
    revive: float = 0.0

    def __post_init__(self):
        if self.decay is not None and not 0 <= self.decay < 1:
            raise UserError(f"decay={self.decay}: must be at least 0 and below 1, or None")
        if self.revive and self.decay is None:
            raise UserError(f"revive={self.revive}: needs a decay; a learnt codebook has no counts")

    def memory(self, rng):
        return None if self.decay is None else no_averages(self.entries, self.dim)

    def assigned(self, memory):
        if memory is None:
            return {}
        return {self.tokeniser: {"code_embedding": memory.entries}}

    def quantise(self, nets, batch, memory, rng: jax.Array) -> Quantisation:
        """Calls the tokeniser; its penalty, memory and metrics.

        Raises:
          UserError: the tokeniser's codebook has another size.
        """
        images = batch[self.image].astype(jnp.float32)
        present = batch[self.present] if self.present else jnp.ones(len(images), bool)
        codebook = nets(self.tokeniser, method="codebook")
        if codebook.shape != (self.entries, self.dim):
            raise UserError(
                f"{type(self).__name__}(entries={self.entries}, dim={self.dim}): the codebook of "
                f"network {self.tokeniser!r} is {codebook.shape[0]} x {codebook.shape[1]}"
            )
        made = nets(self.tokeniser, images)
        where = jnp.broadcast_to(present[:, None, None], made.codes.shape)
        still = jax.lax.stop_gradient

        def mean_square(a, b):
            errors = jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)).mean(-1)
            return mean_of(jnp.where(where, errors, 0.0).sum(), where.sum())

        commitment = mean_square(made.latents, still(made.nearest))
        penalty = self.commitment * commitment
        flat = made.codes.reshape(len(images), -1, 1)
        shares = code_shares(flat, where.reshape(len(images), -1), self.entries)
        one = jnp.ones(())
        metrics = {
            "commitment": (commitment, one),
            "code_perplexity": perplexity(shares),
            "codes_unused": ((shares == 0).mean(), one),
            "feature_std": feature_std(made.latents, where),
        }
        if self.decay is None:
            penalty += mean_square(still(made.latents), made.nearest)
        else:
            vectors = still(made.latents).reshape(-1, self.dim)
            where = where.reshape(-1)
            memory = follow(
                memory, still(codebook), vectors, made.codes.reshape(-1), where, self.decay
            )
            if self.revive:
                memory, revived = revive(
                    memory, vectors, where, self.revive, fold_name(rng, "revive")
                )
                metrics["codes_revived"] = (revived / self.entries, one)
        return Quantisation(images, present, made, penalty, memory, metrics)
