"""The train step: the objectives' weighted losses, balanced; one update; the teachers follow.

It knows no modality, no method and no hardware.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from taichu_jax.objectives.base import Objective
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.schedules import value_at
from taichu_jax.training.balance.base import Balance
from taichu_jax.training.balance.fixed import Fixed
from taichu_jax.training.nets import BoundNets, laid_over
from taichu_jax.training.non_finite import SKIPPED, all_finite, choose
from taichu_jax.training.optim import Optimizer
from taichu_jax.training.state import Batch, TrainState

PyTree = Any
Metrics = dict[str, tuple[jax.Array, jax.Array]]
_FIXED = Fixed()
Step = Callable[[TrainState, Mapping[str, Mapping[str, jax.Array]]], tuple[TrainState, Metrics]]


def make_losses(
    modules: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    seed: int,
    compute_dtype: jnp.dtype | None = None,
):
    """losses(params, teachers, memory, streams, step, part) -> ({name: loss}, (metrics, memory)).

    Each loss, with what its networks add to it (`BoundNets.auxiliary_loss`), is multiplied with its
    weight; the metric `<objective>/loss` is without either.
    `part` numbers the micro-batches of one step, so that each draws its own randomness.
    """

    def losses(params, teachers, memory, streams, step, part=0):
        rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), part)
        weighted, metrics, new_memory, shared = {}, {}, {}, {}
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
            weighted[name] = value_at(objective.weight, step) * (value + nets.auxiliary_loss)
            new_memory[name] = jax.lax.stop_gradient(out.memory)
            metrics[f"{name}/loss"] = (value, jnp.ones(()))
            told = {**nets.auxiliary_metrics, **out.metrics}
            metrics.update({f"{name}/{key}": m for key, m in told.items()})
        return weighted, (jax.lax.stop_gradient(metrics), new_memory)

    return losses


def make_loss(*args, **kwargs):
    """`make_losses`, summed: loss(params, ...) -> (sum of losses, (metrics, memory))."""
    losses = make_losses(*args, **kwargs)

    def loss(*args, **kwargs):
        weighted, rest = losses(*args, **kwargs)
        return sum(weighted.values(), 0.0), rest

    return loss


def make_step(
    modules: Mapping[str, nn.Module],
    objectives: Mapping[str, Objective],
    optimizer: Optimizer,
    *,
    balance: Balance = _FIXED,
    seed: int = 0,
    compute_dtype: jnp.dtype | None = None,
    accumulate: int = 1,
    skip_non_finite: bool = False,
) -> Step:
    """One update as a pure function; the caller jits, shards and donates it.

    Args:
      balance: how the objectives' gradients make one.
      accumulate: micro-batches per update. Gradients are averaged and memories threaded through, so
        losses that compare the examples of a batch see one micro-batch at a time.
      skip_non_finite: a step in which a loss or the gradient's norm is not finite leaves all of the
        state as it was but its `step`; the metric `SKIPPED` counts it.
    """
    losses = make_losses(modules, objectives, seed, compute_dtype)

    def step(state: TrainState, streams) -> tuple[TrainState, Metrics]:
        trained, frozen = optimizer.split(state.params)

        def gradients(memory, streams, part):
            def weighted(trained):
                params = optimizer.join(trained, frozen)
                values, (told, kept) = losses(
                    params, state.teachers, memory, streams, state.step, part
                )
                return values, (told | {"loss": (sum(values.values(), 0.0), jnp.ones(()))}, kept)

            grads, (metrics, memory) = balance.differentiate(weighted, trained)
            return grads, metrics, memory

        if accumulate == 1:
            grads, metrics, memory = gradients(state.memory, streams, 0)
        else:
            grads, metrics, memory = _accumulated(gradients, state.memory, streams, accumulate)

        balanced = balance.combine(
            grads,
            trained=trained,
            losses={name: jnp.divide(*metrics[f"{name}/loss"]) for name in objectives},
            carried=state.balance,
            rng=jax.random.fold_in(jax.random.key(seed), state.step),
        )
        updates, opt_state = optimizer.update(balanced.grads, state.opt_state, trained, state.step)
        params = optimizer.join(optax.apply_updates(trained, updates), frozen)
        for name, objective in sorted(objectives.items()):
            params = laid_over(params, objective.assigned(memory[name]), owner=name)
        metrics["gradient_norm"] = (optax.tree.norm(balanced.grads), jnp.ones(()))
        metrics["learning_rate"] = (optimizer.learning_rate_at(state.step), jnp.ones(()))
        metrics |= balanced.metrics
        for name, factor in balanced.factors.items():
            weight = factor * value_at(objectives[name].weight, state.step)
            metrics[f"{name}/weight"] = (weight, jnp.ones(()))
        new = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            teachers=follow(objectives, state.teachers, params, state.step),
            memory=memory,
            balance=balanced.carried,
        )
        if skip_non_finite:
            finite = all_finite(metrics)
            new = choose(finite, new, dataclasses.replace(state, step=new.step))
            metrics[SKIPPED] = (1.0 - finite, jnp.ones(()))
        return new, metrics

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
