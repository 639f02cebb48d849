"""Momentum contrast: MoCo (arXiv 1911.05722), in the form of MoCo v2 (arXiv 2003.04297).

    L = - 1/B sum_i log exp(q_i k_i / t) / (exp(q_i k_i / t) + sum_{n in queue} exp(q_i n / t))

q_i is the query of the first view, by the trained networks; k_i the key of the second view, by the
teacher; both have length 1. The queue holds the keys of the last steps; those of this step come in
after the loss. Places of the queue that were never written are no negatives, so the first loss is 0;
the released code fills them with random directions instead (`random_start`).

Batch: `image` and `image2` float32 [B, H, W, 3] in [0, 1], two augmentations of one picture; with
`present`, that field, bool [B]: pictures that are absent do not count and leave no keys.
Networks: `encoder`, an image encoder, whose states are averaged over the patches; `projection`.
Teacher: both, with decay 0.999.
Defaults: temperature 0.2 (v2; 0.07 in v1), 65536 negatives of width 128, decay 0.999 (papers). The
networks here have no batch normalisation, so keys need no shuffling among devices; v2's head is
`Projection` with `hidden` and activation 'relu', but for the layer norm between.
Checked against: the formula in NumPy loops over several steps, with a queue that wraps.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.models.layers import masked_mean
from taichu_jax.objectives.base import Loss, Objective, Teacher, mean_of
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.normalise import unit
from taichu_jax.ops.queue import Queue, empty_queue
from taichu_jax.ops.schedules import Schedule, value_at

TEACHER = Teacher(nets=("image", "image_projection"), decay=0.999)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCo(Objective):
    """See the module's docstring.

    Attributes:
      encoder, projection: the networks' names; `teacher` must list both.
      image, image2: the batch fields of the two views.
      present: the batch field that says which pictures are there; None if all are.
      width: features that the projection gives.
      negatives: length of the queue.
      temperature: t above, a number or a schedule.
      random_start: the queue starts full of random directions, as in the released code.
    """

    teacher: Teacher | None = TEACHER
    encoder: str = "image"
    projection: str = "image_projection"
    image: str = "image"
    image2: str = "image2"
    present: str | None = None
    width: int = 128
    negatives: int = 65536
    temperature: float | Schedule = 0.2
    random_start: bool = False

    def memory(self, rng):
        queue = empty_queue(self.negatives, self.width)
        if not self.random_start:
            return queue
        directions = unit(jax.random.normal(rng, queue.items.shape))
        return queue.replace(items=directions, filled=jnp.int32(self.negatives))

    def loss(self, nets, batch, memory: Queue, rng):
        present = batch[self.present] if self.present else jnp.ones(len(batch[self.image]), bool)
        queries = self._features(nets, batch[self.image])
        keys = self._features(nets.teacher, batch[self.image2])
        positive = (queries * keys).sum(-1, keepdims=True)
        negative = jnp.where(memory.valid, queries @ memory.items.T, -jnp.inf)
        logits = jnp.concatenate([positive, negative], axis=-1)
        logits /= value_at(self.temperature, nets.step)
        labels = jnp.zeros(len(logits), jnp.int32)
        total, right, count = cross_entropy(logits, labels, present)
        queue = memory.push(keys, present)
        metrics = {
            "accuracy": (right, count),
            "feature_std": feature_std(queries, present),
            "queue_filled": (queue.filled / self.negatives, jnp.ones(())),
        }
        return Loss(mean_of(total, count), metrics, queue)

    def _features(self, nets, images):
        states = nets(self.encoder, images)
        return unit(nets(self.projection, masked_mean(states.tokens, states.mask)))
