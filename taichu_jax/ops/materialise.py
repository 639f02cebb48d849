"""Keeps a compiler from computing the same sum again and again."""

from __future__ import annotations

import jax


@jax.custom_vjp
def gradient_once(x: jax.Array) -> jax.Array:
    """x; its gradient is written down before anything reads it.

    The gradient of a residual stream is a sum that grows with every layer. XLA takes such sums for
    cheap: on CPUs each layer of a pre-norm transformer adds up the terms of all layers above it anew,
    from 91 arrays in the fourth of eight blocks of MAE's decoder, all of which stay in memory.
    """
    return x


def _forward(x):
    return x, None


def _backward(_, gradient):
    return (jax.lax.optimization_barrier(gradient),)


gradient_once.defvjp(_forward, _backward)
