"""Where activations live on a mesh: hints to the compiler that do nothing without one.

The mesh is the one in context while a function is traced (`training.sharding.on_mesh`,
`jax.set_mesh`). Networks name its axes here, so that they know nothing else about hardware:

    data, fsdp, expert   the examples of a batch (`BATCH`)
    sequence             the positions of an example
    tensor               heads, hidden units
    expert               inside a mixture of experts, the experts
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import PartitionSpec as P

BATCH = ("data", "fsdp", "expert")

Axes = str | tuple[str, ...] | None


def constrain(x: jax.Array, *axes: Axes) -> jax.Array:
    """x, with its dimensions split over these mesh axes; None keeps a dimension whole.

    What the mesh lacks is left out, and so are axes whose sizes do not divide the dimension: of
    several the first ones that do are kept, and where none does the compiler decides.
    """
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} axes for an array of shape {x.shape}")
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, fitting(x.shape, axes, dict(mesh.shape)))


def fitting(shape: tuple[int, ...], axes: tuple[Axes, ...], mesh: dict[str, int]) -> P:
    """The partition of `constrain`, for a mesh of these sizes."""
    result: list[Any] = []
    for length, wanted in zip(shape, axes, strict=True):
        if wanted is None:
            result.append(None)
            continue
        kept: list[str] = []
        parts = 1
        for axis in (wanted,) if isinstance(wanted, str) else wanted:
            size = mesh.get(axis, 1)
            if size > 1 and length % (parts * size) == 0:
                kept.append(axis)
                parts *= size
        result.append(tuple(kept) if kept else P.UNCONSTRAINED)
    return P(*result)


def axis_size(axis: str) -> int:
    """Devices along an axis of the mesh in context; 1 where there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else dict(mesh.shape).get(axis, 1)
