"""How long a step takes at least, by the chip's published peaks (Williams et al. 2009, roofline).

    overlapped = max(compute, memory, network);   one after the other = their sum

compute: the device's counted products over the bfloat16 peak (float32 products run slower);
memory: its counted bytes over the bandwidth; network: what it sends over all its links at once, in the
best case in which every link is busy. Not modelled: latencies, vector units, the host, other slices. A
real step is slower than the first number; it may be faster than the second, never than the first.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.compiled.chips import Chip


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one step, and the shares of the peak that the model's own products take.

    Attributes:
      bound: which of the three is largest.
      utilisation: model FLOPs per second over the peak of all devices, overlapped; and one after
        the other.
    """

    compute: float
    memory: float
    network: float
    bound: str
    overlapped: float
    serial: float
    utilisation: tuple[float, float]


def estimate(
    chip: Chip, *, flops: float, moved: float, sent: float, model_flops: float, devices: int
) -> Estimate:
    """The estimate of one step.

    Args:
      flops, moved, sent: products, bytes of memory and sent bytes of one device.
      model_flops: of all devices, without rematerialisation.
      devices: how many there are.
    """
    peak = chip.flops / chip.devices
    parts = {
        "compute": flops / peak,
        "memory": moved / (chip.bandwidth / chip.devices),
        "network": sent / (chip.link / chip.devices),
    }
    bound = max(parts, key=parts.__getitem__)
    overlapped, serial = parts[bound], sum(parts.values())
    ideal = model_flops / (devices * peak)
    return Estimate(
        **parts,
        bound=bound,
        overlapped=overlapped,
        serial=serial,
        utilisation=(ideal / overlapped, ideal / serial),
    )
