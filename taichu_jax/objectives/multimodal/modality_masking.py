"""Reading examples of which whole modalities are hidden (OPT, arXiv 2107.00249); no objective itself.

Every modality of [T, V, A] is masked entirely with probability 0.3, independently, but never all that
an example has. That is the paper's; the released code always hides the modality that is to be written,
and of the other two the first, the second or neither with 0.3, 0.3 and 0.4 (`hide`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.base import Nets
from taichu_jax.objectives.multimodal.encoders import Encoders, first_rows, present
from taichu_jax.ops.random import fold_name

MASKINGS = ("paper", "released")
HIDE = (0.3, 0.3)  # of the released code


def keep_modalities(rng: jax.Array, has: jax.Array, rate: float = 0.3) -> jax.Array:
    """bool [B, M]: which modalities stay, each masked with probability `rate`, never all of a row.

    The draw in which all present ones would go is drawn again, so the subsets that are left keep
    their relative probabilities. A row that has nothing keeps nothing.

    Args:
      has: bool [B, M], what every row has.
    """
    # One categorical draw over all subsets, restricted to those that keep something the row has, is
    # the same distribution as redrawing until one fits, with static shapes.
    count = has.shape[1]
    subsets = (jnp.arange(2**count)[:, None] >> jnp.arange(count)) & 1  # [S, M]
    log_p = jnp.where(subsets == 1, jnp.log1p(-rate), jnp.log(rate)).sum(-1)
    keeps_some = (subsets[None] & has[:, None].astype(jnp.int32)).any(-1)  # [B, S]
    possible = keeps_some | ~has.any(-1, keepdims=True)
    chosen = jax.random.categorical(rng, jnp.where(possible, log_p, -jnp.inf))
    return (subsets[chosen] == 1) & has


def keep_as_released(
    rng: jax.Array, has: jax.Array, own: int = 0, hide: tuple[float, float] = HIDE
) -> jax.Array:
    """bool [B, 3] (text, image, audio): `own` never stays; of the others one goes, or none.

    A row whose only other modality was drawn to go keeps it.

    Args:
      hide: probability that the first of the others goes, and that the second does.
    """
    dice = jax.random.uniform(rng, (has.shape[0],))
    first, second = (i for i in range(len(MODALITIES)) if i != own)
    keep = [jnp.zeros(has.shape[0], bool)] * len(MODALITIES)
    keep[first] = (dice >= hide[0]) | ~has[:, second]
    keep[second] = (dice < hide[0]) | (dice >= hide[0] + hide[1]) | ~has[:, first]
    return jnp.stack(keep, -1) & has


class Reading(NamedTuple):
    """Some of a batch's examples, and what a decoder may know of them.

    Attributes:
      batch: their fields.
      fused: the cross-modal encoder's states of what stays.
      writable: bool [B], examples that have the modality to be written, and something to read.
      hidden: bool [B], those of them whose own modality is masked.
    """

    batch: Mapping[str, Any]
    fused: Encoded
    writable: jax.Array
    hidden: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModalityMasking:
    """How much of an example a decoder reads.

    Attributes:
      own: the modality that is written.
      masking: 'paper' or 'released'.
      rate: probability with which a modality is masked (`masking="paper"`).
      hide: probabilities with which the first and the second of the other modalities, in the order text,
        image, audio, are masked (`masking="released"`).
      share: share of the batch's examples that is used, to save time.
    """

    own: str
    masking: str = "paper"
    rate: float = 0.3
    hide: tuple[float, float] = HIDE
    share: float = 1.0

    def __post_init__(self):
        if self.masking not in MASKINGS:
            raise UserError(f"masking={self.masking!r}; {choices(self.masking, MASKINGS)}")
        if len(self.hide) != 2 or min(self.hide) < 0 or sum(self.hide) > 1:
            raise UserError(
                f"hide={tuple(self.hide)}: must be two probabilities with a sum of at most 1"
            )

    def read(self, nets: Nets, encoders: Encoders, batch, rng: jax.Array) -> Reading:
        """Encodes the batch, masks, and fuses what stays."""
        encoded = first_rows(encoders.encode(nets, batch), self.share)
        batch = first_rows(batch, self.share)
        has = jnp.stack([present(batch)[name] for name in MODALITIES], -1)
        own, key = MODALITIES.index(self.own), fold_name(rng, "modalities")
        if self.masking == "paper":
            keep = keep_modalities(key, has, self.rate)
        else:
            keep = keep_as_released(key, has, own, self.hide)
        kept = {
            name: encoded[name].replace(mask=encoded[name].mask & keep[:, i : i + 1])
            for i, name in enumerate(MODALITIES)
        }
        if self.masking == "released":
            # Hidden in every row, so its places need not be computed. Given without tokens rather than
            # not at all, so that the fusion has the same parameters.
            nothing = kept[self.own]
            kept[self.own] = nothing.replace(tokens=nothing.tokens[:, :0], mask=nothing.mask[:, :0])
        writable = has[:, own] & keep.any(-1)
        return Reading(batch, encoders.fuse(nets, kept), writable, writable & ~keep[:, own])
