"""A worker of PASE that tells what belongs together (arXiv 1904.03416, 2001.09239).

    L = - mean [ log g(a, p) + log(1 - g(a, n)) ] / 2,    g = sigmoid(head([a, .]))

Anchor a and positive p come from one utterance, the negative n does not belong to them:

'local'     LIM (Ravanelli & Bengio, arXiv 1812.00271): a, p and n are single states. p is another
            state of a's utterance, n one of another utterance.
'global'    GIM (after Deep InfoMax, arXiv 1808.06670): they are means over random chunks, two of one
            utterance, one of another.
'sequence'  SPC: a is a state, p the next `block` states at least `gap` later, n as many at least
            `gap` earlier in the same utterance.

Every utterance gets one other utterance of the batch, drawn uniformly, for its negatives; rows that
have no state are never drawn. The authors compare aligned states of three separately encoded chunks of
two seconds, here one encoding serves for all: positives are any state of the utterance, and the chunks
of 'global' are a share of its states. Their 'sequence' draws one anchor per batch, here every state
that has room on both sides is one.

With `distorted` the encoder hears `distort(audio, lengths, nets.step)`, the same as the other workers.

Batch: `audio` float [B, T] samples at 16 kHz of zero mean and unit variance, `audio_lengths` int32 [B].
Networks: `encoder`, audio to states, with the method `distort` if `distorted` (`PaseEncoder`); `head`,
from two states side by side (1 + block for 'sequence') to one number.
Defaults: gap 16 and block 5 from the authors' code, mean over positives and negatives too (the paper
writes their sum, twice as much); chunk = 0.5 is ours. `swapped` is set for PASE+'s 'global' there.
Checked against: NumPy loops over rows and states given the same draws; each draw's exact rules.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.negatives import sample_others
from taichu_jax.ops.random import fold_name

MODES = ("local", "global", "sequence")


class Triples(NamedTuple):
    """anchor, positive, negative [B, N, D]; usable bool [B, N]. Blocks of states are side by side."""

    anchor: jax.Array
    positive: jax.Array
    negative: jax.Array
    usable: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaseDiscrimination(Objective):
    """See the module's docstring.

    Attributes:
      mode: 'local', 'global' or 'sequence'.
      encoder, head: the networks' names; every worker has a head of its own.
      chunk: length of the chunks of 'global', as a share of the utterance.
      gap, block: of 'sequence', in states.
      swapped: 'local' and 'global' also take the positive for the anchor.
      distorted: the encoder hears distorted speech.
    """

    mode: str
    head: str
    encoder: str = "speech"
    chunk: float = 0.5
    gap: int = 16
    block: int = 5
    swapped: bool = False
    distorted: bool = False

    def loss(self, nets, batch, memory, rng):
        self._check()
        audio, lengths = batch["audio"], batch["audio_lengths"]
        if self.distorted:
            audio = nets(self.encoder, audio, lengths, nets.step, method="distort")
        encoded = nets(self.encoder, audio, lengths)
        states, real = encoded.tokens, encoded.mask
        if self.mode == "sequence":
            triples = sequence_triples(rng, states, real, gap=self.gap, block=self.block)
        elif self.mode == "local":
            triples = local_triples(rng, states, real)
        else:
            triples = global_triples(rng, states, real, chunk=self.chunk)
        a, p, n, usable = triples
        pairs = [(a, p, 1), (a, n, 0)]
        if self.swapped:
            pairs += [(p, a, 1), (p, n, 0)]
        together = jnp.stack([jnp.concatenate(pair[:2], axis=-1) for pair in pairs])
        logits = nets(self.head, together).astype(jnp.float32)
        if logits.shape[-1] != 1:
            raise UserError(f"network {self.head!r} gives {logits.shape[-1]} numbers, needs 1")
        sign = jnp.asarray([1.0 if pair[2] else -1.0 for pair in pairs])[:, None, None]
        margin = sign * logits[..., 0]
        total, count = counted(jax.nn.softplus(-margin), usable)
        metrics = {
            "accuracy": counted(margin > 0, usable),
            "feature_std": feature_std(states, real),
        }
        return Loss(mean_of(total, count), metrics)

    def _check(self):
        if self.mode not in MODES:
            raise UserError(f"mode={self.mode!r}; valid: {', '.join(MODES)}")
        if not 0 < self.chunk <= 1:
            raise UserError(f"chunk={self.chunk}: must be above 0 and at most 1")
        if self.gap < 1 or self.block < 1:
            raise UserError(f"gap={self.gap}, block={self.block}: must be 1 or more")
        if self.swapped and self.mode == "sequence":
            raise UserError("mode='sequence' cannot be swapped: a state is not a block of states")


def local_triples(rng: jax.Array, states: jax.Array, real: jax.Array) -> Triples:
    """Every state, another of its utterance, and any state of another utterance."""
    own, several = sample_others(fold_name(rng, "positives"), real, 1)
    row, has_other = other_rows(fold_name(rng, "rows"), real.any(-1))
    count = jnp.maximum(real.sum(-1)[row], 1)[:, None]
    draw = jax.random.uniform(fold_name(rng, "negatives"), real.shape)
    place = jnp.minimum((draw * count).astype(jnp.int32), count - 1)
    return Triples(
        states,
        jnp.take_along_axis(states, own, axis=1),
        jnp.take_along_axis(states[row], place[..., None], axis=1),
        several & has_other[:, None],
    )


def global_triples(rng: jax.Array, states: jax.Array, real: jax.Array, *, chunk: float) -> Triples:
    """Means of two random chunks of every utterance, and of one of another; N = 1."""

    def mean(name):
        count = real.sum(-1)
        size = jnp.maximum((chunk * count).astype(jnp.int32), 1)
        draw = jax.random.uniform(fold_name(rng, name), count.shape)
        room = jnp.maximum(count - size + 1, 1)
        start = jnp.minimum((draw * room).astype(jnp.int32), room - 1)
        index = jnp.arange(real.shape[1])
        inside = real & (index >= start[:, None]) & (index < (start + size)[:, None])
        weight = inside / jnp.maximum(inside.sum(-1, keepdims=True), 1)
        return jnp.einsum("bn,bnd->bd", weight, states, preferred_element_type=jnp.float32).astype(
            states.dtype
        )[:, None]

    row, has_other = other_rows(fold_name(rng, "rows"), real.any(-1))
    return Triples(
        mean("anchors"),
        mean("positives"),
        mean("negatives")[row],
        (real.any(-1) & has_other)[:, None],
    )


def sequence_triples(
    rng: jax.Array, states: jax.Array, real: jax.Array, *, gap: int, block: int
) -> Triples:
    """Every state, a block of states behind it and one before it."""
    batch, size, width = states.shape
    time, count = jnp.arange(size), real.sum(-1)[:, None]
    # a block starts at `time + gap` or later, or ends at `time - gap` or earlier
    later = count - block - (time + gap) + 1  # how many starts there are
    earlier = jnp.broadcast_to(time - gap - block + 2, later.shape)

    def blocks(name, first, choice):
        draw = jax.random.uniform(fold_name(rng, name), later.shape)
        start = first + jnp.minimum((draw * choice).astype(jnp.int32), choice - 1)
        index = jnp.clip(start[..., None] + jnp.arange(block), 0, size - 1)
        index = index.reshape(batch, size * block, 1)
        picked = jnp.take_along_axis(states, index, axis=1)
        return picked.reshape(batch, size, block * width)

    return Triples(
        states,
        blocks("positives", time + gap, later),
        blocks("negatives", jnp.zeros_like(time), earlier),
        real & (later > 0) & (earlier > 0),
    )


def other_rows(rng: jax.Array, usable: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(int32 [B], bool [B]): for every row another usable one, uniformly; and whether there is one."""
    batch = len(usable)
    allowed = usable & ~jnp.eye(batch, dtype=bool)
    noise = jax.random.uniform(rng, (batch, batch))
    return jnp.where(allowed, noise, -1.0).argmax(-1), allowed.any(-1)
