"""A recogniser of another run that writes down sounds, so that what was synthesised can be judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from taichu_jax.data.parts import AudioPart
from taichu_jax.errors import UserError
from taichu_jax.evals.decoding.ctc import greedy
from taichu_jax.evals.features import jitted
from taichu_jax.objectives.speech.ctc import CTC

_ROWS = 8  # sounds that are read at a time


class Listener:
    """The CTC recogniser of a run, decoded greedily.

    Args:
      run: an open run.

    Raises:
      UserError: the run has no CTC objective, or no tokenizer.
    """

    def __init__(self, run: Any):
        found = {k: v for k, v in run.experiment.objectives.items() if isinstance(v, CTC)}
        if not found or run.tokenizer is None:
            kinds = ", ".join(type(v).__name__ for v in run.experiment.objectives.values())
            raise UserError(
                f"recogniser={str(run.path)!r}: recognises nothing; it needs CTC, not {kinds}"
            )
        self._objective = next(iter(found.values()))
        stream = run.experiment.streams[self._objective.source]
        self._part = next(p for p in stream.parts(run.tokenizer) if isinstance(p, AudioPart))
        self._decode = run.tokenizer.decode
        self._compute = jitted(run, self._objective.log_probabilities)

    def __call__(self, waves: Sequence[np.ndarray]) -> list[str]:
        """The words of every wave float32 [samples] at 16 kHz, as far as the run's streams reach."""
        texts: list[str] = []
        for start in range(0, len(waves), _ROWS):
            texts += self._group(waves[start : start + _ROWS])
        return texts

    def _group(self, waves: Sequence[np.ndarray]) -> list[str]:
        name, fields = self._objective.input, self._part.fields()
        shape, dtype = fields[name]
        field: np.ndarray = np.zeros((_ROWS, *shape), dtype)
        lengths = np.zeros(_ROWS, np.int32)
        for row, wave in enumerate(waves):
            values = self._part.values(wave[: self._part.samples])
            field[row, : len(values)], lengths[row] = values, len(values)
        batch = {name: jnp.asarray(field), f"{name}_lengths": jnp.asarray(lengths)}
        log_probs, states = map(np.asarray, self._compute(batch))
        pairs = zip(log_probs, states, strict=True)
        return [self._decode(greedy(p[:n])) for p, n in list(pairs)[: len(waves)]]
