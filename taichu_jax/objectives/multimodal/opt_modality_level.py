"""OPT's modality level: denoising text reconstruction (arXiv 2107.00249, eq. 9).

    L_DTR = - E sum_i log P(t_i | t_<i, T, V, A)

where every modality of [T, V, A] is masked entirely with probability 0.3, independently, but never
all that an example has. The text decoder attends over the cross-modal encoder's states of what is
left, so it learns to write from any subset: to transcribe, to caption, to copy.

Batch: see `Encoders`; `lang` int32 [B] where the decoder has languages. Examples without text, or
with nothing left to read, do not count.
Networks: the encoders, the fusion, `decoder`.
Defaults: p = 0.3 from the paper. `masking="released"` is what the released code does instead: the text
is always masked, and of the others the image, the audio or neither with 0.3, 0.3 and 0.4 (it also
hides 15 % of the tokens of what stays, which is left out here); `smoothing` is 0.1 there.
Checked against: the formula in NumPy; the exact distribution of subsets.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders, first_rows, present
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.random import fold_name

MASKINGS = ("paper", "released")


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


def keep_as_released(rng: jax.Array, has: jax.Array) -> jax.Array:
    """bool [B, 3] (text, image, audio): text never stays; image or audio goes with 0.3 each, or none.

    A row whose only other modality was drawn to go keeps it.
    """
    dice = jax.random.uniform(rng, (has.shape[0],))
    image, audio = dice >= 0.3, (dice < 0.3) | (dice >= 0.6)
    image |= ~has[:, 2]
    audio |= ~has[:, 1]
    return jnp.stack([jnp.zeros_like(image), image, audio], -1) & has


@dataclasses.dataclass(frozen=True, kw_only=True)
class OPTModalityLevel(Objective):
    """See the module's docstring.

    Attributes:
      encoders: names of the networks.
      decoder: the text decoder.
      rate: probability with which a modality is masked (`masking="paper"`).
      masking: 'paper' or 'released'.
      smoothing: label smoothing of the decoder's targets.
      share: share of the batch's examples that is used, to save time.
    """

    encoders: Encoders = Encoders()
    decoder: str = "text_decoder"
    rate: float = 0.3
    masking: str = "paper"
    smoothing: float = 0.0
    share: float = 1.0

    def __post_init__(self):
        if self.masking not in MASKINGS:
            raise UserError(f"masking={self.masking!r}; {choices(self.masking, MASKINGS)}")

    def loss(self, nets, batch, memory, rng):
        encoded = first_rows(self.encoders.encode(nets, batch), self.share)
        batch = first_rows(batch, self.share)
        has = jnp.stack([present(batch)[name] for name in MODALITIES], -1)
        key = fold_name(rng, "modalities")
        if self.masking == "paper":
            keep = keep_modalities(key, has, self.rate)
        else:
            keep = keep_as_released(key, has)
        kept = {
            name: encoded[name].replace(mask=encoded[name].mask & keep[:, i : i + 1])
            for i, name in enumerate(MODALITIES)
        }
        fused = self.encoders.fuse(nets, kept)
        tokens, mask = batch["text"], batch["text_mask"]
        told = {"language": batch["lang"]} if "lang" in batch else {}
        logits = nets(self.decoder, tokens[:, :-1], mask[:, :-1], fused.tokens, fused.mask, **told)
        readable = has[:, 0] & keep.any(-1)
        counts = mask[:, 1:] & readable[:, None]
        total, right, count = cross_entropy(logits, tokens[:, 1:], counts, self.smoothing)
        blind = counts & ~keep[:, :1]  # text that must come from the picture or the voice
        _, right_blind, count_blind = cross_entropy(logits, tokens[:, 1:], blind)
        metrics = {
            "accuracy": (right, count),
            "accuracy_without_text": (right_blind, count_blind),
        }
        return Loss(mean_of(total, count), metrics)
