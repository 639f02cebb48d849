"""What XLA is told when it compiles a train step."""

from __future__ import annotations


def options(platform: str) -> dict[str, str]:
    """Compiler options for a platform, as `jax.Device.platform` names it.

    On CPUs XLA removes optimization barriers before it fuses, and with them what they are for: that a
    residual stream's gradient is added up once (ops/materialise.py), and that a block is computed
    again instead of being remembered (`stack.remat`). So the pass that removes them is left out.
    """
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if platform == "cpu" else {}
