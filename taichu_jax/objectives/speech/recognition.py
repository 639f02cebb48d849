"""What the recognition objectives share: what is heard, and what was said; not an objective itself.

Fine-tuning as in wav2vec 2.0 (arXiv 2006.11477, section 4.3): for the first updates only the new
output layers learn, the front end never does. A network without a gradient stands still only if its
weights do not decay either, so set the optimiser's `weight_decay` to 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.layers import Encoded
from taichu_jax.objectives.base import Nets, Objective
from taichu_jax.ops.chosen import gather_chosen
from taichu_jax.ops.lengths import within
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spec_augment import SpecAugment
from taichu_jax.ops.vocabulary import CLS, PAD, SEP

INPUTS = ("mel", "audio")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognition(Objective):
    """A loss on the words of a recording.

    Attributes:
      encoder: the speech encoder's name.
      input: the field that is read, 'mel' or 'audio'.
      freeze_encoder_until: the encoder gets no gradient in the first so many steps: 10,000 in wav2vec
        2.0's fine-tuning, of an encoder that another run trained; 0 for one that starts from nothing.
      freeze_front_end: the encoder's `features` never get a gradient (wav2vec 2.0: true).
      augment: what masks the log-mel frames, or None.
      skip_full: rows that fill the batch's frames or ids are left out, as they may have been cut, and
        the words are then not those of the sound.
    """

    encoder: str = "speech"
    input: str = "mel"
    freeze_encoder_until: int = 0
    freeze_front_end: bool = False
    augment: SpecAugment | None = None
    skip_full: bool = True

    def __post_init__(self):
        if self.input not in INPUTS:
            raise UserError(f"input={self.input!r}; {choices(self.input, INPUTS)}")
        if self.augment is not None and self.input != "mel":
            raise UserError(f"augment: SpecAugment needs input='mel', not {self.input!r}")
        if self.freeze_encoder_until < 0:
            raise UserError(f"freeze_encoder_until={self.freeze_encoder_until}: must be 0 or more")

    def hear(
        self, nets: Nets, batch: Mapping[str, jax.Array], rng: jax.Array | None = None
    ) -> Encoded:
        """The encoder's states; without `rng` nothing is masked."""
        field, lengths = batch[self.input], batch[f"{self.input}_lengths"]
        if self.augment is not None and rng is not None:
            field = self.augment(fold_name(rng, "augment"), field, lengths)
        if self.freeze_front_end:
            latents, real = nets.frozen(self.encoder, field, lengths, method="features")
            encoded = nets(self.encoder, latents, real, method="contextualise")
        else:
            encoded = nets(self.encoder, field, lengths)
        if not self.freeze_encoder_until:
            return encoded
        still = nets.step < self.freeze_encoder_until
        tokens = jnp.where(still, jax.lax.stop_gradient(encoded.tokens), encoded.tokens)
        return encoded.replace(tokens=tokens)

    def whole(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """bool [B]: rows that have sound and words, neither of which can have been cut."""
        said = spoken(batch).any(-1)
        frames = batch[f"{self.input}_lengths"]
        there = said & (frames > 0)
        if not self.skip_full:
            return there
        return there & (frames < batch[self.input].shape[1]) & ~batch["text_mask"].all(-1)


def spoken(batch: Mapping[str, jax.Array]) -> jax.Array:
    """bool [B, L]: ids that stand for something that was said; [CLS], [SEP] and padding do not."""
    tokens = batch["text"]
    return batch["text_mask"] & (tokens != CLS) & (tokens != SEP) & (tokens != PAD)


def transcript(batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(labels int32 [B, L], their number int32 [B]): what was said, from the left; then [PAD]."""
    real = spoken(batch)
    count = real.sum(-1).astype(jnp.int32)
    _, (labels,) = gather_chosen(real, real.shape[1], batch["text"])
    return jnp.where(within(count, labels.shape[1]), labels, PAD), count
