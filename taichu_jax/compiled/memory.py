"""The memory of one device in one step, and what to change where there is too little."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import numpy as np

from taichu_jax.errors import UserError

PyTree = Any
PARTS = ("params", "opt_state", "teachers", "memory", "balance", "step")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
      parts: arguments by what they are: params, opt_state, teachers, batch, ...; without the padding
        of tiled layouts.
      compiled: whether there is a program; the next five are 0 where there is none.
      arguments, outputs, temporaries, code: as XLA gives them.
      aliased: of the outputs, what takes over the place of arguments (donation).
      needed: arguments + outputs - aliased + temporaries + code; of a program that did not fit, what
        XLA says it wanted, the arguments added where it speaks of temporaries only.
      capacity: of the device.
    """

    parts: dict[str, int]
    needed: int
    capacity: int
    compiled: bool
    arguments: int = 0
    outputs: int = 0
    temporaries: int = 0
    code: int = 0
    aliased: int = 0

    @property
    def fits(self) -> bool:
        """Whether the step can run: XLA refuses the grossest cases only, so the sum decides."""
        return self.compiled and self.needed <= self.capacity


def device_bytes(tree: PyTree) -> int:
    """Bytes of one device's parts of arrays (or shapes) that have shardings."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * _itemsize(leaf.dtype)
        for leaf in jax.tree.leaves(tree)
    )


def _itemsize(dtype: Any) -> int:
    return dtype.itemsize if hasattr(dtype, "itemsize") else 8


def parts_of(state: Any, batch: PyTree) -> dict[str, int]:
    """Argument bytes of one device by what they are; what is empty is left out."""
    sizes = {name: device_bytes(getattr(state, name)) for name in PARTS if hasattr(state, name)}
    return {name: size for name, size in {**sizes, "batch": device_bytes(batch)}.items() if size}


def of_program(statistics: Any, parts: dict[str, int], capacity: int) -> Memory:
    """From `compiled.memory_analysis()`."""
    arguments, outputs = statistics.argument_size_in_bytes, statistics.output_size_in_bytes
    temporaries, aliased = statistics.temp_size_in_bytes, statistics.alias_size_in_bytes
    code = statistics.generated_code_size_in_bytes
    needed = arguments + outputs - aliased + temporaries + code
    return Memory(
        parts,
        needed,
        capacity,
        compiled=True,
        arguments=arguments,
        outputs=outputs,
        temporaries=temporaries,
        code=code,
        aliased=aliased,
    )


def of_refusal(message: str, parts: dict[str, int], capacity: int) -> Memory | None:
    """From the error of a program that XLA would not compile for want of memory; else None."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    amount = r"([\d.]+)([KMG]?)"
    everything = re.search(rf"[Uu]sed {amount} of {amount}", message)
    temporaries = re.search(rf"\({amount}\) exceeds available HBM \({amount}\)", message)
    found = everything or temporaries
    if found is None:
        raise UserError(
            f"does not fit, and XLA does not say by how much: {message.splitlines()[0]}"
        )
    needed, limit = (
        int(float(found.group(i)) * 2 ** (10 * " KMG".index(found.group(i + 1) or " ")))
        for i in (1, 3)
    )
    if not everything:
        needed += sum(parts.values())
    return Memory(parts, needed, min(limit, capacity), compiled=False)
