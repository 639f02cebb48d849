"""The objectives' own weights, and nothing else."""

from __future__ import annotations

import dataclasses

from taichu_jax.training.balance.base import Balance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed(Balance):
    """L = sum_i w_i L_i with the weights of the config: one forward and one backward pass."""
