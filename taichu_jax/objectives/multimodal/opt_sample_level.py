"""OPT's sample level: five-class matching of words, picture and voice (arXiv 2107.00249, eq. 11).

    L = BCE(sigmoid(FC(h_[CLS])), one-hot class),  s in R^5

Classes (Fig. 1), drawn uniformly: 0 all match; 1 only image and audio match (the text is another
example's); 2 only text and image match; 3 only text and audio match; 4 none match (image and audio
come from two different other examples).

Batch: see `Encoders`; `concept` int32 [B]: replacements always show another concept. Examples that
lack a modality, or for which the batch holds no replacement that their class needs, do not count.
Networks: the encoders, the fusion, `head` (width 5).
Defaults: the paper gives no sampling of the classes; uniform as in the released code.
`variant="released"` is that code's softmax cross entropy with its own order of classes: 0 image and
audio both of one other example, 1 image replaced, 2 audio replaced, 3 image and audio of two other
examples, 4 all match.
Checked against: the formula in NumPy; labels and sources of every class, exactly.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.models.fusion import MODALITIES
from taichu_jax.objectives.base import Loss, Objective, mean_of
from taichu_jax.objectives.multimodal.encoders import Encoders, first_rows, present
from taichu_jax.ops.random import fold_name

# Class -> where text, image and audio come from: 0 the example itself, 1 and 2 two other ones.
SOURCES = {
    "paper": ((0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 2)),
    "released": ((0, 1, 1), (0, 1, 0), (0, 0, 1), (0, 1, 2), (0, 0, 0)),
}


def build_matches(
    rng: jax.Array, concept: jax.Array, complete: jax.Array, variant: str = "paper"
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws a class for every example and the examples that its modalities come from.

    Args:
      concept: int32 [B]; a replacement has another concept than the example, and the second one also
        another concept than the first.
      complete: bool [B], has all three modalities; only these count and only these replace.

    Returns:
      (labels int32 [B], sources int32 [B, 3] for text, image, audio, valid bool [B]).
    """
    size = concept.shape[0]
    classes, first, second = jax.random.split(rng, 3)
    labels = jax.random.randint(classes, (size,), 0, 5)
    different = (concept[:, None] != concept[None]) & complete[None]

    def draw(key, allowed):
        noise = jnp.where(allowed, jax.random.uniform(key, (size, size)), -1.0)
        return noise.argmax(-1), allowed.any(-1)

    one, has_one = draw(first, different)
    two, has_two = draw(second, different & (concept[one][:, None] != concept[None]))
    pool = jnp.stack([jnp.arange(size), one, two], -1)
    which = jnp.asarray(SOURCES[variant])[labels]
    sources = jnp.take_along_axis(pool, which, axis=-1)
    found = jnp.stack([jnp.ones(size, bool), has_one, has_one & has_two], -1)
    valid = complete & jnp.take_along_axis(found, which, axis=-1).all(-1)
    return labels, sources.astype(jnp.int32), valid


@dataclasses.dataclass(frozen=True, kw_only=True)
class OPTSampleLevel(Objective):
    """See the module's docstring.

    Attributes:
      encoders: names of the networks.
      head: maps [CLS] to five scores.
      variant: 'paper' or 'released'.
      share: share of the batch's examples that is used, to save time.
    """

    encoders: Encoders = Encoders()
    head: str = "matching"
    variant: str = "paper"
    share: float = 1.0

    def __post_init__(self):
        if self.variant not in SOURCES:
            raise UserError(f"variant={self.variant!r}; {choices(self.variant, SOURCES)}")

    def loss(self, nets, batch, memory, rng):
        encoded = first_rows(self.encoders.encode(nets, batch), self.share)
        batch = first_rows(batch, self.share)
        has = present(batch)
        complete = has["text"] & has["image"] & has["audio"]
        labels, sources, valid = build_matches(
            fold_name(rng, "classes"), batch["concept"], complete, self.variant
        )
        mixed = {
            name: jax.tree.map(lambda x, i=i: x[sources[:, i]], encoded[name])
            for i, name in enumerate(MODALITIES)
        }
        scores = nets(self.head, self.encoders.fuse(nets, mixed).tokens[:, 0]).astype(jnp.float32)
        if self.variant == "paper":
            target = jax.nn.one_hot(labels, 5)
            losses = optax.sigmoid_binary_cross_entropy(scores, target).mean(-1)
        else:
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        count = valid.sum().astype(jnp.float32)
        right = ((scores.argmax(-1) == labels) & valid).sum().astype(jnp.float32)
        total = jnp.where(valid, losses, 0.0).sum()
        return Loss(mean_of(total, count), {"accuracy": (right, count)})
