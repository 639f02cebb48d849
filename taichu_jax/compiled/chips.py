"""What Google publishes about its TPU chips; the numbers that estimates divide by.

Sources, read in 2026-11: https://docs.cloud.google.com/tpu/docs/tpu7x (its table has v5p, v6e and
TPU7x), .../v5p, .../v6e, .../v5e, .../v4, .../v3, .../v2; for the links of v2 and v3, "A domain-specific
supercomputer for training deep neural networks", CACM 63(7), 2020 (four links of 496 and 656 Gbit/s each
way). The tables give the interconnect of a chip in both directions together; half of it is what a
chip can send. v4 and older pages do not give it or give 2,400 Gbit/s (v4), taken as one direction, as the
1,600 of v5e, which the newer page prints as 400 GB/s both ways.
"""

from __future__ import annotations

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip.

    Attributes:
      flops: peak of bfloat16 products, per second.
      hbm: bytes of main memory.
      bandwidth: of main memory, bytes per second.
      link: bytes per second that all links of the chip together can send.
      devices: what JAX calls devices in one chip; they share all the above.
    """

    name: str
    flops: float
    hbm: int
    bandwidth: float
    link: float
    devices: int = 1


# By the `device_kind` that JAX reports.
CHIPS = {
    "TPU v2": Chip(
        name="TPU v2", flops=45e12, hbm=16 * GIB, bandwidth=700e9, link=248e9, devices=2
    ),
    "TPU v3": Chip(
        name="TPU v3", flops=123e12, hbm=32 * GIB, bandwidth=900e9, link=328e9, devices=2
    ),
    "TPU v4": Chip(name="TPU v4", flops=275e12, hbm=32 * GIB, bandwidth=1200e9, link=300e9),
    "TPU v5 lite": Chip(name="TPU v5e", flops=197e12, hbm=16 * GIB, bandwidth=819e9, link=200e9),
    "TPU v5": Chip(name="TPU v5p", flops=459e12, hbm=95 * GIB, bandwidth=2765e9, link=600e9),
    "TPU v6 lite": Chip(name="TPU v6e", flops=918e12, hbm=32 * GIB, bandwidth=1638e9, link=400e9),
    "TPU7x": Chip(
        name="TPU7x", flops=2307e12, hbm=192 * GIB, bandwidth=7380e9, link=600e9, devices=2
    ),
}
