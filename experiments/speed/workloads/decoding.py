"""Greedy decoding with a cache: taichu_jax/inference/decoding.py and GPT-2's `generate`."""

from __future__ import annotations

import dataclasses

from experiments.speed.workloads.base import Workload, tokens
from experiments.speed.workloads.text import GPT2_BASE, GPT2_TINY, gpt2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decode(Workload):
    """`prompt` known ids, then the likeliest ones up to `length`.

    Attributes:
      precision: 'float32' or 'bfloat16', of weights, cache and states.
    """

    precision: str
    memory_goal: float | None = 1.1

    def prompt(self, sizes):
        """int32 [B, P]."""
        return tokens(sizes["model"]["vocab_size"], (sizes["batch"], sizes["prompt"]))

    def units(self, sizes):
        return sizes["batch"] * (sizes["length"] - sizes["prompt"])

    def model(self, sizes):
        return gpt2(sizes)

    def save(self, model, folder):
        model.save_pretrained(folder)

    def ours(self, sizes, folder, device):
        from experiments.speed.ours_decoding import Greedy

        return Greedy(self, sizes, folder, device)

    def theirs(self, sizes, folder, device, mode):
        from experiments.speed.theirs_decoding import Greedy

        return Greedy(self, sizes, folder, device, mode)


_TINY = {"batch": 2, "prompt": 3, "length": 12, "model": GPT2_TINY}
_BASE = {"batch": 1, "prompt": 8, "length": 128, "model": GPT2_BASE}

DECODING = tuple(
    Decode(
        name=f"decode_{precision}",
        label=f"GPT-2 small, greedy, {precision}",
        unit="tokens",
        goal=0.75,
        precision=precision,
        tiny=_TINY,
        base=_BASE,
        gpu={"length": 512},
    )
    for precision in ("float32", "bfloat16")
)
