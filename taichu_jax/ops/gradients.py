"""Changes to gradients that leave values as they are."""

from __future__ import annotations

import jax


def scale_gradient(x: jax.Array, factor: float) -> jax.Array:
    """x itself, to the bit, with its gradient multiplied by `factor`."""
    still = jax.lax.stop_gradient(x)
    return still + factor * (x - still)
