"""A causal language model of ours as the scorer of a beam."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.evals.features import jitted
from taichu_jax.ops.vocabulary import CLS, PAD


class CausalScorer:
    """log P of the next id, given a prefix; a `decoding.ctc.Scorer`.

    Args:
      run: an open run that trained a `CausalLanguageModel`, with the recogniser's vocabulary.
      network: its text encoder.
      remembered: answers that are kept, as beams ask again and again.
    """

    def __init__(self, run, network: str = "text", remembered: int = 200_000):
        networks = run.experiment.networks
        if network not in networks:
            raise UserError(f"{run.path}: no network {network!r}; {choices(network, networks)}")
        if not getattr(networks[network], "causal", False):
            raise UserError(f"{run.path}: network {network!r} is no causal language model")
        self.length = networks[network].length
        self._remembered = remembered
        self._known: dict[Any, Any] = {}

        def next_id(nets, ids, count):
            mask = jnp.arange(self.length)[None] < count
            states = nets(network, ids, mask).tokens
            last = jnp.take(states, count - 1, axis=1)
            logits = nets(network, last, method="logits")[0].astype(jnp.float32)
            return jax.nn.log_softmax(logits)

        self._next_id = jitted(run, next_id)

    def __call__(self, prefix: tuple[int, ...]) -> np.ndarray:
        """float32 [V]; of a prefix that is longer than the model reads, its last ids count."""
        if prefix not in self._known:
            if len(self._known) >= self._remembered:
                self._known.clear()
            read = (CLS, *prefix[max(0, len(prefix) - self.length + 1) :])
            ids = np.full((1, self.length), PAD, np.int32)
            ids[0, : len(read)] = read
            self._known[prefix] = np.asarray(self._next_id(ids, np.int32(len(read))))
        return self._known[prefix]
