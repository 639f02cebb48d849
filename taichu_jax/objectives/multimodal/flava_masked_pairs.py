"""FLAVA's losses over masked pairs: matching, hidden words, hidden patches (arXiv 2112.04482, 3.2).

    L = L_ITM + L_MMM-text + L_MMM-image
    L_ITM       = - E log P(match | h_[CLS])
    L_MMM-text  = - 1/|W| sum_{i in W} log P(w_i | h_i)
    L_MMM-image = - 1/|M| sum_{i in M} log P(z_i | h_i)

h are the fusion's states of a picture with the patches M hidden (ops/block_masking.py) and a text with
the words W corrupted, z_i the code that a tokeniser, which stays as it is, gives the whole picture at
patch i. A part of the pairs has another pair's text, and those count for L_ITM only. The three are one
objective because they read the same states; two of it with other weights are two plug-ins. FLAVA is the
plain sum, with weights of 1, of this one and three that are elsewhere:

    contrastive   ContrastiveAlignment with modalities=('text', 'image'), encoders=ClassTokenEncoders(),
                  ClampedLogitScale and linear projections, over the global batch
    MIM           BEiT with its own head, over pictures alone
    MLM           MaskedLanguageModel, whose head is the encoder's own, over texts alone

Batch: `text` int32 [B, L], `text_mask` bool [B, L], `has_text` bool [B]; `image` float32 [B, H, W, 3]
in [0, 1], `has_image` bool [B]; `concept` int32 [B], so that another text is never right by chance.
Examples that lack one of the two do not count; in a batch of pictures or of texts alone the loss is 0.
Networks: `text`; `image`, with `mask`, with or without a class token; `fusion`, of both (PairFusion);
`matching_head`, to 2 scores; `text_head` and `image_head`, from states to words and codes; `tokeniser`,
see BEiT.
Defaults: 15 % of the words with 80/10/10 and blocks of patches as in BEiT are the paper's. 75 of 196
patches and a tenth of other texts are from the authors' code, which also has ITM read the masked pair
and MMM count matching pairs only; it hides whole words, here tokens, and takes other texts from the whole
data set, here from the batch.
transformers' model counts the same places of the fusion: behind its class token stand the picture's class
token, the patches, the text. It differs in this: where no pair of a batch matches, its MMM counts all of
them, here none; it is given pairs with other texts, whose rows its contrastive loss leaves out while
their texts stay as negatives, and here that loss reads the pairs as they are; its negatives are those of
one process unless torch.distributed runs; and a batch of pairs has no MIM and MLM.
Checked against: the formula in NumPy loops given the same draws; exact statistics of the other texts;
losses, states and gradients of transformers' model with the same weights, codes and masks.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.objectives.vision.patch_codes import PatchCodes
from taichu_jax.ops.chosen import gather_chosen
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.masking import hide_words
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name

TERMS = ("matching", "mmm_text", "mmm_image")


def other_texts(
    rng: jax.Array, concept: jax.Array, complete: jax.Array, rate: float
) -> tuple[jax.Array, jax.Array]:
    """(int32 [B], the row whose text each row reads; bool [B], where it is another row's).

    A complete row reads another's with probability `rate`: any complete row's of another concept, each
    equally likely. Where there is none it keeps its own.

    Args:
      concept: int32 [B].
      complete: bool [B], has both a text and a picture.
    """
    size = len(concept)
    which, whether = jax.random.split(rng)
    allowed = (concept[:, None] != concept[None]) & complete[None]
    noise = jnp.where(allowed, jax.random.uniform(which, (size, size)), -1.0)
    drawn = jax.random.uniform(whether, (size,)) < rate
    other = drawn & complete & allowed.any(-1)
    return jnp.where(other, noise.argmax(-1), jnp.arange(size)).astype(jnp.int32), other


class Pairs(NamedTuple):
    """Masked pairs, read.

    Attributes:
      cls: [B, D], the fusion's.
      words: [B, L, D], of the text.
      patches: [B, N, D], of the picture.
      hidden_words: bool [B, L], of each row's own text.
      hidden_patches: bool [B, N].
      complete: bool [B], pairs that are there.
      matching: bool [B], those of them that read their own text.
    """

    cls: jax.Array
    words: jax.Array
    patches: jax.Array
    hidden_words: jax.Array
    hidden_patches: jax.Array
    complete: jax.Array
    matching: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class FLAVAMaskedPairs(Objective):
    """See the module's docstring.

    Attributes:
      vocab_size: random replacements of words are drawn below it.
      patch: side of a patch of the image encoder, in pixels.
      matching, mmm_text, mmm_image: weights of the losses; 0 leaves one out, and its head. Without
        `matching` every row reads its own text.
      text, image, fusion, matching_head, text_head, image_head, tokeniser: the networks' names.
      other: share of the pairs that read another pair's text.
      rate: share of the words that are hidden.
      image_rate: the largest share of the patches that is hidden.
      least, aspect, token_scale: see PatchCodes.
      chosen_only: the two heads see hidden words and patches alone, which gives the same losses and
        gradients for less work.
    """

    vocab_size: int
    patch: int = 16
    matching: float = 1.0
    mmm_text: float = 1.0
    mmm_image: float = 1.0
    text: str = "text"
    image: str = "image"
    fusion: str = "fusion"
    matching_head: str = "itm_head"
    text_head: str = "mmm_text_head"
    image_head: str = "mmm_image_head"
    tokeniser: str = "image_tokeniser"
    other: float = 0.1
    rate: float = 0.15
    image_rate: float = 0.383
    least: int = 16
    aspect: float = 0.3
    token_scale: float = 1.0
    chosen_only: bool = False

    def __post_init__(self):
        weights = {name: getattr(self, name) for name in TERMS}
        for name, value in weights.items():
            if value < 0:
                raise UserError(f"{name}={value}: must be 0 or more")
        if not any(weights.values()):
            raise UserError(f"{', '.join(f'{name}=0' for name in TERMS)}: one must be above 0")
        for name in ("other", "rate"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)}: must be above 0 and at most 1")
        self._patch_codes()

    def loss(self, nets, batch, memory, rng):
        pairs = self.read(nets, batch, rng)
        found = {}
        if self.matching:
            scores = nets(self.matching_head, pairs.cls)
            found["matching"] = scores, pairs.matching.astype(jnp.int32), pairs.complete
        if self.mmm_text:
            found["mmm_text"] = self._words(nets, pairs, batch["text"])
        if self.mmm_image:
            found["mmm_image"] = self._patches(nets, pairs, batch["image"])
        value = jnp.zeros((), jnp.float32)
        metrics = {
            "other_share": counted(pairs.complete & ~pairs.matching, pairs.complete),
            "masked_share": counted(pairs.hidden_patches, pairs.complete[:, None]),
            "feature_std": feature_std(pairs.cls, pairs.complete),
        }
        for name, (scores, labels, where) in found.items():
            total, right, count = cross_entropy(scores, labels, where)
            value += getattr(self, name) * mean_of(total, count)
            metrics |= {name: (total, count), f"{name}_accuracy": (right, count)}
        return Loss(value, metrics)

    def read(self, nets, batch, rng) -> Pairs:
        """Hides words and patches, gives some pictures another's text, and fuses."""
        tokens, images = batch["text"], batch["image"]
        complete = batch["has_text"] & batch["has_image"]
        present = batch["text_mask"] & batch["has_text"][:, None]
        corrupted, hidden_words = hide_words(
            rng, tokens, present, rate=self.rate, vocab_size=self.vocab_size
        )
        rows, columns = (length // self.patch for length in images.shape[1:3])
        hidden_patches = self._patch_codes().mask(rng, len(images), rows, columns)
        source, other = jnp.arange(len(tokens)), jnp.zeros(len(tokens), bool)
        if self.matching:
            key = fold_name(rng, "other texts")
            source, other = other_texts(key, batch["concept"], complete, self.other)
        text = nets(self.text, corrupted, batch["text_mask"])
        text = text.replace(mask=text.mask & present, layers=text.layers[-1:])
        text = jax.tree.map(lambda x: x[source], text)
        image = nets(self.image, images, mask=hidden_patches)
        image = image.replace(layers=image.layers[-1:])
        states = nets(self.fusion, image=image, text=text).tokens
        end = 1 + image.tokens.shape[1]
        return Pairs(
            cls=states[:, 0],
            words=states[:, end:],
            patches=states[:, end - rows * columns : end],
            hidden_words=hidden_words,
            hidden_patches=hidden_patches,
            complete=complete,
            matching=complete & ~other,
        )

    def _words(self, nets, pairs: Pairs, words: jax.Array):
        """Scores, words, and where they count."""
        read, where = pairs.words, pairs.hidden_words
        if self.chosen_only:
            most = max(1, math.ceil(self.rate * words.shape[1]))  # of a text without padding
            where, (read, words) = gather_chosen(where, most, read, words)
        return nets(self.text_head, read), words, where & pairs.matching[:, None]

    def _patches(self, nets, pairs: Pairs, images: jax.Array):
        """Scores, codes, and where they count."""
        read, where = pairs.patches, pairs.hidden_patches
        codes = self._patch_codes().codes(nets, images)
        if self.chosen_only:
            most = int(self.image_rate * codes.shape[1])
            where, (read, codes) = gather_chosen(where, most, read, codes)
        scores = self._patch_codes().scores(nets, self.image_head, read)
        return scores, codes, where & pairs.matching[:, None]

    def _patch_codes(self) -> PatchCodes:
        return PatchCodes(
            owner="FLAVAMaskedPairs",
            patch=self.patch,
            tokeniser=self.tokeniser,
            rate=self.image_rate,
            least=self.least,
            aspect=self.aspect,
            token_scale=self.token_scale,
        )
