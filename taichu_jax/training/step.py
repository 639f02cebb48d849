"""The train step: sum the objectives' weighted losses, update, let the teachers follow.

It knows no modality, no method and no hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from taichu_jax.objectives.base import Objective
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import value_at
from taichu_jax.training.nets import BoundNets
from taichu_jax.training.optim import Optimizer
from taichu_jax.training.state import Batch, TrainState

PyTree = Any
Metrics = dict[str, tuple[jax.Array, jax.Array]]
Step = Callable[[TrainState, Mapping[str, Mapping[str, jax.Array]]], tuple[TrainState, Metrics]]


def make_loss(
    modules: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    seed: int,
    compute_dtype: jnp.dtype | None = None,
):
    """loss(params, teachers, memory, streams, step, part) -> (sum of losses, (metrics, memory)).

    `part` numbers the micro-batches of one step, so that each draws its own randomness.
    """

    def loss(params, teachers, memory, streams, step, part=0):
        rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)
        total, metrics, new_memory, shared = 0.0, {}, {}, {}
        for name, objective in sorted(objectives.items()):
            key = fold_name(rng, name)
            nets = BoundNets(
                modules,
                params,
                teachers.get(name),
                rng=fold_name(key, "nets"),
                step=step,
                compute_dtype=compute_dtype,
                shared=shared,
                owner=f"config.objectives.{name}",
            )
            out = objective.loss(nets, Batch.of(objective, name, streams), memory[name], key)
            value = out.value.astype(jnp.float32)
            total += value_at(objective.weight, step) * value
            new_memory[name] = jax.lax.stop_gradient(out.memory)
            metrics[f"{name}/loss"] = (value, jnp.ones(()))
            metrics.update({f"{name}/{key}": m for key, m in out.metrics.items()})
        return total, (jax.lax.stop_gradient(metrics), new_memory)

    return loss


def make_step(
    modules: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    optimizer: Optimizer,
    *,
    seed: int = 0,
    compute_dtype: jnp.dtype | None = None,
    accumulate: int = 1,
) -> Step:
    """One update as a pure function; the caller jits, shards and donates it.

    Args:
      accumulate: micro-batches per update. Gradients are averaged and memories threaded through, so
        losses that compare the examples of a batch see one micro-batch at a time.
    """
    loss = make_loss(modules, objectives, seed, compute_dtype)

    def step(state: TrainState, streams) -> tuple[TrainState, Metrics]:
        trained, frozen = optimizer.split(state.params)

        def gradients(memory, streams, part):
            def objective(trained):
                params = optimizer.join(trained, frozen)
                return loss(params, state.teachers, memory, streams, state.step, part)

            (value, (metrics, memory)), grads = jax.value_and_grad(objective, has_aux=True)(trained)
            return grads, metrics | {"loss": (value, jnp.ones(()))}, memory

        if accumulate == 1:
            grads, metrics, memory = gradients(state.memory, streams, 0)
        else:
            grads, metrics, memory = _accumulated(gradients, state.memory, streams, accumulate)

        updates, opt_state = optimizer.update(grads, state.opt_state, trained, state.step)
        params = optimizer.join(optax.apply_updates(trained, updates), frozen)
        metrics["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
        metrics["learning_rate"] = (optimizer.learning_rate_at(state.step), jnp.ones(()))
        return TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            teachers=follow(objectives, state.teachers, params, state.step),
            memory=memory,
        ), metrics

    return step


def follow(objectives, teachers: PyTree, params: PyTree, step: jax.Array) -> PyTree:
    """teacher <- decay * teacher + (1 - decay) * student; a constant decay of 1 copies nothing."""

    def moved(old, new, decay):
        return {
            k: moved(old[k], new[k], decay)
            if isinstance(old[k], Mapping)
            else (old[k] + (1 - decay) * (new[k] - old[k])).astype(old[k].dtype)
            for k in old
        }

    result = {}
    for name, trees in teachers.items():
        decay = objectives[name].teacher.decay if objectives[name].teacher else 1.0
        stays = not callable(decay) and decay == 1.0
        result[name] = {
            network: tree if stays else moved(tree, params[network], value_at(decay, step))
            for network, tree in trees.items()
        }
    return result


def _accumulated(gradients, memory, streams, parts: int):
    """Runs `gradients` on `parts` slices of the batch and averages what they return."""
    sliced = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), streams)

    def body(carry, inputs):
        grads, metrics, memory = carry
        part, piece = inputs
        new_grads, new_metrics, memory = gradients(memory, piece, part)
        grads, metrics = jax.tree.map(jnp.add, (grads, metrics), (new_grads, new_metrics))
        return (grads, metrics, memory), None

    first = jax.tree.map(lambda x: x[0], sliced)
    shapes = jax.eval_shape(gradients, memory, first, jnp.int32(0))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[:2])
    (grads, metrics, memory), _ = jax.lax.scan(body, (*zeros, memory), (jnp.arange(parts), sliced))
    return jax.tree.map(lambda g: g / parts, grads), metrics, memory
