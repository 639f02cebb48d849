"""Randomness by name: the same name always gives the same stream, in whatever order it is asked."""

from __future__ import annotations

import zlib

import jax


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """`key` folded with a stable 32-bit hash of `name` (Python's own hash changes with the process)."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
