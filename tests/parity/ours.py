"""One of our objectives, run once: loss, metrics, gradients, and what every network returned."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from taichu_jax.training.nets import BoundNets
from taichu_jax.training.state import init_params

TOLERANCE = 1e-4


class Result(NamedTuple):
    """What a run gave.

    Attributes:
      calls: 'role network method' -> the results of these calls, in order.
      gradients: of the trained parameters.
    """

    value: jax.Array
    metrics: dict
    calls: dict[str, list]
    gradients: dict

    def metric(self, name: str) -> float:
        total, count = self.metrics[name]
        return float(total / count)


class RecordingNets(BoundNets):
    """Remembers what the networks returned."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls: dict[str, list] = {}

    def _apply(self, role, name, params, method, args, kwargs, train=True):
        result = super()._apply(role, name, params, method, args, kwargs, train)
        self.calls.setdefault(f"{role} {name} {method or 'call'}", []).append(result)
        return result


def runner(modules: dict[str, Any], objective, rng: jax.Array):
    """Jitted (params, batch, teachers) -> Result."""

    @jax.jit
    def run(params, batch, teachers=None):
        def value(params):
            nets = RecordingNets(modules, params, teachers, owner="parity")
            loss = objective.loss(nets, batch, objective.memory(rng), rng)
            return loss.value, (loss.metrics, nets.calls)

        (loss, (metrics, calls)), gradients = jax.value_and_grad(value, has_aux=True)(params)
        return Result(loss, dict(metrics), calls, gradients)

    return run


def shapes_of(modules: dict[str, Any], objective, batch) -> dict:
    """The shapes of the parameters that training would create."""

    def create(batch):
        return init_params(modules, {"parity": objective}, {"stream": batch}, 0)

    return jax.eval_shape(create, batch)[0]


def assert_close(ours, theirs, where=None, size: float | None = None, what: str = "") -> None:
    """|ours - theirs| < 1e-4 of the largest |theirs| (or of `size`), where `where` is true."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (what, ours.shape, theirs.shape)
    if where is not None:
        ours, theirs = ours[np.asarray(where)], theirs[np.asarray(where)]
    size = np.abs(theirs).max() if size is None else size
    error = np.abs(ours - theirs).max()
    assert error <= TOLERANCE * size, f"{what}: off by {error:.3g}, the largest is {size:.3g}"


def assert_gradients_close(ours: dict, theirs: dict) -> None:
    """Every parameter's, measured by its largest value, or by 1e-3 of the largest of all parameters.

    The gradient of a key's bias is zero but for rounding: the second measure is for such.
    """
    ours = traverse_util.flatten_dict(dict(ours), sep="/")
    theirs = traverse_util.flatten_dict(theirs, sep="/")
    assert set(ours) == set(theirs)
    largest = max(np.abs(g).max() for g in theirs.values())
    for path, g in theirs.items():
        size = max(np.abs(g).max(), 1e-3 * largest)
        assert_close(ours[path], g, size=size, what=f"gradient of {path}")
