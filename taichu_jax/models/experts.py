"""Mixture of experts: many feed-forward layers, of which each token passes through one or a few.

Switch Transformer (arXiv 2101.03961) for top-1, GShard (arXiv 2006.16668) and ST-MoE (arXiv 2202.08906)
for top-k:

    p = softmax(x W_r), float32;   y = sum over the k largest p_i of g_i E_i(x)
    g_i = p_i for k = 1, and p_i over the sum of the k chosen for k > 1
    loss = balance * N sum_i f_i P_i + z * mean of logsumexp(x W_r)^2

f_i is the share of the choices that fell on expert i, before any are dropped, P_i the mean of p_i, both
over the real tokens of the batch. An expert takes at most

    capacity = ceil(factor * k * tokens / experts)

tokens of a group, in their order; a choice beyond that is dropped, and a token of which all were adds
nothing to its residual stream. Padding is never routed nor counted.

Training is when somebody collects the losses, that is when the collection `AUXILIARY` is mutable: the
capacity factor for training and the jitter hold exactly then.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from taichu_jax.errors import UserError
from taichu_jax.models.layers import Dropout, gelu
from taichu_jax.ops.constrain import BATCH, constrain

AUXILIARY = "auxiliary"  # the collection; 'loss' is added to the objective, the rest are metrics
HOME = tuple(
    axis for axis in BATCH if axis != "expert"
)  # what splits groups that are at their expert


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experts:
    """Settings of the mixtures in a stack.

    Attributes:
      count: experts per mixture.
      chosen: k, experts per token.
      every: each `every`-th block has a mixture, the others a feed-forward layer (Switch: 2).
      capacity: factor in training (Switch: 1.0 to 1.25).
      evaluation_capacity: factor elsewhere: evaluation, teachers, frozen networks (ST-MoE: 2.0).
      balance: weight of the load-balance loss (Switch: 1e-2); of each mixture, they are summed.
      z: weight of the router's z-loss (ST-MoE: 1e-3).
      jitter: the router's input is multiplied with uniform numbers from 1 - jitter to 1 + jitter in
        training (Switch: 1e-2).
      group: tokens that share an expert's capacity, at most: whole examples, or equal parts of a long
        one. 0 is one example, whose states then do not depend on the rest of the batch. Dispatch
        takes memory in proportion to tokens times group.
    """

    count: int
    chosen: int = 1
    every: int = 2
    capacity: float = 1.25
    evaluation_capacity: float = 2.0
    balance: float = 1e-2
    z: float = 0.0
    jitter: float = 0.0
    group: int = 0

    def __post_init__(self):
        for key in ("count", "every"):
            if getattr(self, key) < 1:
                raise UserError(f"stack.experts.{key}={getattr(self, key)}: must be at least 1")
        if not 1 <= self.chosen <= self.count:
            raise UserError(f"stack.experts.chosen={self.chosen}: must be from 1 to {self.count}")
        for key in ("capacity", "evaluation_capacity"):
            if getattr(self, key) <= 0:
                raise UserError(f"stack.experts.{key}={getattr(self, key)}: must be above 0")
        for key in ("balance", "z", "group"):
            if getattr(self, key) < 0:
                raise UserError(f"stack.experts.{key}={getattr(self, key)}: must be 0 or more")
        if not 0 <= self.jitter < 1:
            raise UserError(f"stack.experts.jitter={self.jitter}: must be from 0 to below 1")

    def slots(self, tokens: int, training: bool) -> int:
        """An expert's capacity in a group of `tokens` tokens; never more than there are."""
        factor = self.capacity if training else self.evaluation_capacity
        wanted = factor * self.chosen * tokens / self.count
        return min(tokens, math.ceil(wanted - 1e-6))  # 1.1 * 10 is 11, not 12


def group_size(batch: int, length: int, group: int) -> int:
    """Tokens per group for rows of `length` tokens: whole rows, or equal parts of one; see `Experts`."""
    if group == 0:
        return length
    if length > group:
        return max(n for n in range(1, group + 1) if length % n == 0)
    return length * max(n for n in range(1, group // length + 1) if batch % n == 0)


def largest(x: jax.Array, k: int) -> jax.Array:
    """Which of the last axis are the k largest, in order: one-hot int32 [..., k, E] of x [..., E].

    Not `jax.lax.top_k`, for which the partitioner gathers the whole batch on every device.
    """
    left, chosen = jax.lax.stop_gradient(x), []
    for _ in range(k):
        chosen.append(jax.nn.one_hot(left.argmax(-1), x.shape[-1], dtype=jnp.int32))
        left = jnp.where(chosen[-1] > 0, -jnp.inf, left)
    return jnp.stack(chosen, axis=-2)


def ranks(chosen: jax.Array, causal: bool) -> jax.Array:
    """How many choices of the same expert come before each: int32 [G, S, K] of chosen [G, S, K, E].

    First choices of all tokens come before second ones (GShard), except in a causal stack: there a
    token's place must not depend on what comes after it, so all choices of a token come first.
    """
    line = chosen if causal else chosen.swapaxes(1, 2)
    flat = line.reshape(len(line), -1, line.shape[-1])
    before = jnp.cumsum(flat, axis=1) - flat
    rank = (before * flat).sum(-1).reshape(line.shape[:-1])
    return rank if causal else rank.swapaxes(1, 2)


class Router(nn.Module):
    """Scores float32 [..., experts] of states [..., D], computed in float32 (Switch, section 2.4)."""

    experts: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (x.shape[-1], self.experts))
        exact = jax.lax.Precision.HIGHEST
        return jnp.dot(x.astype(jnp.float32), kernel.astype(jnp.float32), precision=exact)


class ExpertDense(nn.Module):
    """x_e W_e + b_e for every expert e: x [E, G, C, D] -> [E, G, C, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("kernel", init, (len(x), x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (len(x), self.features))
        y = jnp.einsum("egcd,edf->egcf", x, kernel.astype(x.dtype))
        return y + bias.astype(x.dtype)[:, None, None]


class Mixture(nn.Module):
    """A feed-forward layer of which each token uses `chosen` of `count` copies.

    Attributes:
      hidden: units of each expert.
      causal: see `ranks`.
    """

    settings: Experts
    hidden: int
    dropout: float = 0.0
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array) -> jax.Array:
        """x [B, N, D] -> [B, N, D]; positions where real bool [B, N] is false get 0."""
        settings, experts = self.settings, self.settings.count
        training = self.is_mutable_collection(AUXILIARY)
        batch, length, width = x.shape
        size = group_size(batch, length, settings.group)
        tokens = constrain(x.reshape(-1, size, width), BATCH, "sequence", None)
        there = real.reshape(-1, size)

        seen = tokens.astype(jnp.float32)
        if training and settings.jitter and self.has_rng("dropout"):
            low, high = 1.0 - settings.jitter, 1.0 + settings.jitter
            seen *= jax.random.uniform(
                self.make_rng("dropout"), seen.shape, minval=low, maxval=high
            )
        # Who comes first is counted along a group, so its positions must be together.
        logits = constrain(Router(experts, name="router")(seen), BATCH, None, None)
        probabilities = jax.nn.softmax(logits)
        chosen = largest(probabilities, settings.chosen) * there[..., None, None]
        slots = settings.slots(size, training)
        slot = jax.nn.one_hot(ranks(chosen, self.causal), slots, dtype=x.dtype)  # 0 beyond the last
        gates = (probabilities[:, :, None] * chosen).sum(-1)
        if settings.chosen > 1:
            gates /= jnp.maximum(gates.sum(-1, keepdims=True), 1e-9)
        dispatch = jnp.einsum("gske,gskc->gsec", chosen.astype(x.dtype), slot)
        weighed = (chosen * gates[..., None]).astype(x.dtype)
        combine = jnp.einsum("gske,gskc->gsec", weighed, slot)

        # From where the tokens are to where their experts are, and back: two all-to-alls.
        sent = jnp.einsum("gsec,gsd->egcd", dispatch, tokens)
        sent = constrain(sent, None, BATCH, "sequence", None)
        sent = constrain(sent, "expert", HOME, "sequence", None)
        hidden = gelu(ExpertDense(self.hidden, name="up")(sent))
        hidden = constrain(hidden, "expert", HOME, "sequence", "tensor")
        done = ExpertDense(width, name="down")(Dropout(self.dropout)(hidden))
        done = constrain(done, "expert", HOME, "sequence", None)
        done = constrain(done, None, BATCH, None, None)
        result = jnp.einsum("gsec,egcd->gsd", combine, done)

        if training and not self.is_initializing():
            self._tell(logits, probabilities, chosen, dispatch, there)
        return constrain(result.reshape(x.shape), BATCH, "sequence", None)

    def _tell(self, logits, probabilities, chosen, dispatch, there):
        """Sows the auxiliary loss and the metrics, as (sum, count)."""
        experts = self.settings.count
        tokens = there.sum().astype(jnp.float32)
        weight = there.astype(jnp.float32) / jnp.maximum(tokens, 1.0)
        choices = chosen.sum((0, 1, 2)).astype(jnp.float32)
        share = choices / jnp.maximum(choices.sum(), 1.0)
        balance = experts * (share * (probabilities * weight[..., None]).sum((0, 1))).sum()
        z = (jnp.square(jax.nn.logsumexp(logits, axis=-1)) * weight).sum()
        entropy = -(share * jnp.log(jnp.maximum(share, 1e-9))).sum() / max(math.log(experts), 1e-9)
        dropped = choices.sum() - dispatch.astype(jnp.float32).sum()
        some = (tokens > 0).astype(jnp.float32)
        self.sow(AUXILIARY, "loss", self.settings.balance * balance + self.settings.z * z)
        self.sow(AUXILIARY, "load_balance", (balance, some))
        self.sow(AUXILIARY, "router_z", (z, some))
        self.sow(AUXILIARY, "load_entropy", (entropy, some))
        self.sow(AUXILIARY, "dropped", (dropped, choices.sum()))
