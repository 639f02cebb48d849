"""How a stack of blocks is made: what is remembered, how it is compiled, which blocks have experts.

Every network with a transformer has one field `stack` of this kind. None of it changes what a network
computes, except `experts`.
"""

from __future__ import annotations

import dataclasses

import jax

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.experts import Experts

REMAT = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
ATTENTION = ("plain", "fused")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Settings of a stack of blocks.

    Attributes:
      remat: what is kept of a block for the backward pass. 'none': everything (nothing is computed
        twice); 'full': its input alone (arXiv 1604.06174); 'dots': also the products with weights,
        so that only attention and what is cheap is computed again.
      scan: the blocks' parameters are stacked [depth, ...] under one name `blocks`, and one compiled
        block runs in a loop: the time to compile does not grow with the depth.
      experts: a mixture of experts in place of feed-forward layers; None for none.
      attention: 'plain' writes the scores down; 'fused' has them computed by cuDNN's kernel, which keeps
        them to itself, where that can be: on CUDA GPUs, with 16 bits a number, without dropout of the
        weights, heads of 8, 16, ... or 128 numbers, positions that are not split over devices, no cache.
        Elsewhere it is 'plain'. A bias of the scores is then in 16 bits, too.
    """

    remat: str = "none"
    scan: bool = False
    experts: Experts | None = None
    attention: str = "plain"

    def __post_init__(self):
        if self.remat not in REMAT:
            raise UserError(f"stack.remat={self.remat!r}; {choices(self.remat, REMAT)}")
        if self.attention not in ATTENTION:
            valid = choices(self.attention, ATTENTION)
            raise UserError(f"stack.attention={self.attention!r}; {valid}")

    @property
    def draws(self) -> bool:
        """Whether training needs randomness because of these settings."""
        return self.experts is not None and self.experts.jitter > 0.0

    def period(self, depth: int, shared_layers: bool) -> int:
        """After how many blocks their kinds repeat.

        Raises:
          UserError: these settings do not fit the depth.
        """
        if self.experts is None:
            return 1
        every = self.experts.every
        where = f"stack.experts.every={every}"
        if shared_layers and every != 1:
            raise UserError(f"{where}: layers that share one block are all of one kind; valid: 1")
        if every > depth:
            raise UserError(f"{where}: a stack of {depth} blocks would have no experts")
        if self.scan and depth % every:
            valid = ", ".join(str(n) for n in range(1, depth + 1) if depth % n == 0)
            raise UserError(
                f"{where}: does not divide the {depth} blocks of a scanned stack; valid: {valid}"
            )
        return every
