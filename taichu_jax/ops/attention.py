"""What attention makes of queries, keys and values: softmax(q k / sqrt d + bias) v (arXiv 1706.03762).

Shapes, for all: query [B, N, heads, d]; key and value [B, M, heads, d]; mask bool and bias float32, both
broadcastable to [B, heads, N, M], or None; with `causal`, query n sees keys 0 to n. The result is
[B, N, heads, d]. A query that sees nothing gets the zero vector, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from taichu_jax.ops.constrain import axis_size

Kernel = Literal["cudnn", "xla"]  # as `jax.nn.dot_product_attention` names them


def kernel() -> Kernel | None:
    """This machine's fused kernel, or None."""
    device = jax.devices()[0]
    cuda = device.platform == "gpu" and "cuda" in device.client.platform_version
    return "cudnn" if cuda else None


def kernel_for(query: jax.Array, wanted: bool) -> Kernel | None:
    """The fused kernel that takes these queries, or None where there is none or it is not wanted.

    cuDNN's takes 16 bits a number and sizes of heads that are multiples of 8 up to 128, and no
    positions that are split over devices.
    """
    name = kernel() if wanted and axis_size("sequence") == 1 else None
    size = query.shape[-1]
    small = query.dtype in (jnp.bfloat16, jnp.float16) and size % 8 == 0 and size <= 128
    return None if name == "cudnn" and not small else name


def plain(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    causal: bool,
    dropout: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Writes the scores down, [B, heads, N, M]; the softmax is in float32.

    Args:
      dropout: is given the weights.
    """
    mask = _with_past(mask, causal, query.shape[1], key.shape[1])
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key)
    scores = (scores * query.shape[-1] ** -0.5).astype(jnp.float32)
    if bias is not None:
        scores += bias
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    weights = dropout(weights.astype(query.dtype))
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


def fused(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    causal: bool,
    name: Kernel,
) -> jax.Array:
    """By a kernel that keeps the scores to itself (arXiv 2205.14135); bias in the type of the queries.

    Args:
      name: of the kernel, see `kernel`.
    """
    rows, columns = query.shape[1], key.shape[1]
    some = None
    if mask is not None:
        seen = _with_past(mask, causal, rows, columns).any(-1, keepdims=True)
        some = jnp.swapaxes(_four(seen), 1, 2)  # [B or 1, N or 1, heads or 1, 1]
    odd = (rows % 2, columns % 2)
    if (mask is not None or bias is not None) and any(odd):
        # cuDNN has no gradient with a mask or a bias whose sides are odd.
        query = jnp.pad(query, ((0, 0), (0, odd[0]), (0, 0), (0, 0)))
        key, value = (jnp.pad(x, ((0, 0), (0, odd[1]), (0, 0), (0, 0))) for x in (key, value))
        mask = jnp.ones((1, 1, rows, columns), bool) if mask is None else mask
    sides = query.shape[1], key.shape[1]
    mask, bias = (x if x is None else _grown(x, (rows, columns), sides) for x in (mask, bias))
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        None if bias is None else bias.astype(query.dtype),
        mask,
        is_causal=causal,
        implementation=name,
    )[:, :rows]
    return mixed if some is None else jnp.where(some, mixed, 0.0)


def _with_past(mask, causal, rows, columns):
    if not causal:
        return mask
    past = jnp.tril(jnp.ones((rows, columns), bool))
    return past if mask is None else mask & past


def _four(x):
    """x with four dimensions."""
    return x.reshape((1,) * (4 - x.ndim) + x.shape)


def _grown(x, sides, wanted):
    """x [..., N or 1, M or 1] as [., ., N, M], then padded with zeros to the wanted sides."""
    x = _four(x)
    x = jnp.broadcast_to(x, (*x.shape[:2], *sides))
    return jnp.pad(x, ((0, 0), (0, 0), *((0, w - s) for s, w in zip(sides, wanted, strict=True))))
