"""The optimiser: Optax, with learning-rate factors and weight decay by rules on parameter names.

The first rule whose pattern is found in a parameter's path ("audio/block_0/mlp/up/kernel") decides.
Rules must cover every parameter. A parameter with a learning-rate factor of 0 is frozen: it gets no
gradient and no optimiser state. Statistics of a fixed batch norm are, whatever the rules say.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from taichu_jax.errors import UserError
from taichu_jax.ops.schedules import Schedule, value_at

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What happens to the parameters whose path contains a match of `pattern` (a regular expression).

    Attributes:
      rate: factor on the learning rate; 0 freezes.
      decay: factor on the weight decay.
    """

    pattern: str
    rate: float = 1.0
    decay: float = 1.0


# Matrices decay; vectors, embeddings of positions and single tokens do not (BERT, ViT, MAE recipes).
DEFAULT_RULES = (
    Rule(pattern=r"(bias|scale|position|_token|_embedding|logit_scale)$", decay=0.0),
    Rule(pattern=r".*"),
)


# Before all others: the fixed statistics of `models.layers.FrozenBatchNorm`.
STATISTICS = Rule(pattern=r"/(mean|variance)$", rate=0.0, decay=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101) and clipping of the global norm.

    Attributes:
      learning_rate: number or schedule.
      clip: largest global gradient norm; None does not clip.
    """

    learning_rate: float | Schedule
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float | None = 1.0
    rules: tuple[Rule, ...] = DEFAULT_RULES


class Optimizer:
    """`AdamW` over a tree of parameters, split into what is trained and what is frozen.

    Args:
      settings: of the config.
      first: rules that come before the config's.
    """

    def __init__(self, settings: AdamW, first: tuple[Rule, ...] = ()):
        self.settings = settings
        self._rules = (STATISTICS, *first, *settings.rules)
        self._clip = (
            optax.identity() if settings.clip is None else optax.clip_by_global_norm(settings.clip)
        )
        self._adam = optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps)

    def init(self, params: PyTree) -> PyTree:
        return self._adam.init(self.split(params)[0])

    def learning_rate_at(self, step: jax.Array) -> jax.Array:
        return value_at(self.settings.learning_rate, step)

    def update(self, grads: PyTree, opt_state: PyTree, trained: PyTree, step: jax.Array):
        """The updates to add to the trained parameters (flat, as `split` returns), and the state."""
        grads, _ = self._clip.update(grads, optax.EmptyState())
        scaled, opt_state = self._adam.update(grads, opt_state)
        rate = self.learning_rate_at(step)
        decay = self.settings.weight_decay
        updates = {}
        for path, direction in scaled.items():
            rule = self.rule(path)
            direction = direction + decay * rule.decay * trained[path]
            updates[path] = (-rate * rule.rate * direction).astype(trained[path].dtype)
        return updates, opt_state

    def split(self, params: PyTree) -> tuple[dict[str, Any], dict[str, Any]]:
        """(trained, frozen), each a flat {path: array}."""
        flat = paths(params)
        trained = {k: v for k, v in flat.items() if self.rule(k).rate != 0.0}
        return trained, {k: v for k, v in flat.items() if k not in trained}

    def join(self, trained: dict[str, Any], frozen: dict[str, Any]) -> PyTree:
        """The inverse of `split`."""
        return traverse_util.unflatten_dict(trained | frozen, sep="/")

    def rule(self, path: str) -> Rule:
        for rule in self._rules:
            if re.search(rule.pattern, path):
                return rule
        raise UserError(f"config.optimizer.rules: no pattern matches parameter {path!r}")


def paths(params: PyTree) -> dict[str, jnp.ndarray]:
    """{"network/module/parameter": array}, sorted by path."""
    return dict(sorted(traverse_util.flatten_dict(params, sep="/").items()))
