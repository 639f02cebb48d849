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

from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.objectives.multimodal.modality_masking import ModalityMasking
from taichu_jax.ops.classification import cross_entropy


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
        self._masked()

    def loss(self, nets, batch, memory, rng):
        reading = self._masked().read(nets, self.encoders, batch, rng)
        batch, fused = reading.batch, reading.fused
        tokens, mask = batch["text"], batch["text_mask"]
        told = {"language": batch["lang"]} if "lang" in batch else {}
        logits = nets(self.decoder, tokens[:, :-1], mask[:, :-1], fused.tokens, fused.mask, **told)
        counts = mask[:, 1:] & reading.writable[:, None]
        total, right, count = cross_entropy(logits, tokens[:, 1:], counts, self.smoothing)
        blind = mask[:, 1:] & reading.hidden[:, None]  # must come from the picture or the voice
        _, right_blind, count_blind = cross_entropy(logits, tokens[:, 1:], blind)
        metrics = {
            "accuracy": (right, count),
            "accuracy_without_text": (right_blind, count_blind),
        }
        return Loss(mean_of(total, count), metrics)

    def _masked(self) -> ModalityMasking:
        return ModalityMasking(own="text", masking=self.masking, rate=self.rate, share=self.share)
