"""What the reconstructions of pictures and of sounds share; not an objective itself.

    L = - E sum_i log P(c_i | c_<i, T, V, A)

c are the codes of a frozen tokeniser, computed in the step; whole modalities of [T, V, A] are masked.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Nets, Objective, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders
from taichu_jax.objectives.multimodal.modality_masking import HIDE, ModalityMasking
from taichu_jax.ops.classification import cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeReconstruction(Objective, abc.ABC):
    """See the module's docstring.

    Attributes:
      encoders: names of the networks.
      decoder: a `CodeDecoder`.
      tokeniser: the network whose codes are written.
      rate, masking, hide, share: see `ModalityMasking`.
      smoothing: label smoothing of the decoder's targets.
    """

    encoders: Encoders = Encoders()
    decoder: str
    tokeniser: str
    rate: float = 0.3
    masking: str = "paper"
    hide: tuple[float, float] = HIDE
    smoothing: float = 0.0
    share: float = 1.0

    def __post_init__(self):
        self._masked()

    @property
    @abc.abstractmethod
    def own(self) -> str:
        """The modality that is written."""

    @abc.abstractmethod
    def codes(
        self, nets: Nets, batch: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array | None]:
        """(int32 [B, N, stages], how many of the N are real, int32 [B], or None for all)."""

    def loss(self, nets, batch, memory, rng):
        reading = self._masked().read(nets, self.encoders, batch, rng)
        batch, fused = reading.batch, reading.fused
        codes, lengths = self.codes(nets, batch)
        ids, real = nets(self.decoder, codes, lengths, method="delayed")
        read = nets(self.decoder, ids, method="read")
        told = {"language": batch["lang"]} if "lang" in batch else {}
        logits = nets(self.decoder, read, real.any(-1), fused.tokens, fused.mask, **told)
        possible = nets(self.decoder, method="possible")
        ids = jnp.where(real, ids, 0)

        def summed(rows):
            where = real & rows[:, None, None]
            return cross_entropy(logits, ids, where, self.smoothing, possible)

        total, right, count = summed(reading.writable)
        _, right_hidden, count_hidden = summed(reading.hidden)
        metrics = {
            "accuracy": (right, count),
            f"accuracy_without_{self.own}": (right_hidden, count_hidden),
        }
        return Loss(mean_of(total, count), metrics)

    def _masked(self) -> ModalityMasking:
        return ModalityMasking(
            own=self.own, masking=self.masking, rate=self.rate, hide=self.hide, share=self.share
        )
