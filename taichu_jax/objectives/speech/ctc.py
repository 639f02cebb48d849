"""Connectionist temporal classification: CTC (Graves et al., ICML 2006).

    L = - log p(y | x),    p(y | x) = sum over paths pi with B(pi) = y of  prod_t p(pi_t | x)

A path names a label or the blank at every state; B merges repeats, then drops blanks. A row with fewer
states than labels plus repeated neighbours has no path: it is left out, and `too_long` counts it. The
paper sums over the training set; `average` says what the sum is divided by.

Batch: `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames (or `audio` and `audio_lengths`, in
samples); `text` int32 [B, L] and `text_mask` bool [B, L]. Of the ids all but [CLS], [SEP] and [PAD] are
labels.
Networks: `encoder`; `head`, from states to scores of all ids, among which [PAD] is the blank.
Defaults: the freezing schedule and SpecAugment are off, see `Recognition` for wav2vec 2.0's; 'characters'
is what fairseq does (the batch's sum over its number of labels). PyTorch's mean is neither: it averages
over rows what each row loses per label.
Checked against: the sum over all paths, enumerated; Wav2Vec2ForCTC of transformers 5.23 (pre-norm) with
the same weights, a row without a path among the batch: logits, loss, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, counted, mean_of
from taichu_jax.objectives.speech.recognition import Recognition, transcript
from taichu_jax.ops.lengths import within, zero_beyond
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.vocabulary import PAD

AVERAGES = ("characters", "utterances")
BLANK = PAD


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTC(Recognition):
    """See the module's docstring.

    Attributes:
      head: the output layer's name.
      average: 'characters' divides the batch's sum by its labels, 'utterances' by its rows.
    """

    head: str = "ctc_head"
    average: str = "characters"

    def __post_init__(self):
        super().__post_init__()
        if self.average not in AVERAGES:
            raise UserError(f"average={self.average!r}; {choices(self.average, AVERAGES)}")

    def loss(self, nets, batch, memory, rng):
        encoded = self.hear(nets, batch, rng)
        logits = nets(self.head, encoded.tokens).astype(jnp.float32)
        labels, count = transcript(batch)
        whole = self.whole(batch)
        fits = encoded.mask.sum(-1) >= states_needed(labels, count)
        used = whole & fits
        losses = optax.ctc_loss(
            zero_beyond(logits, encoded.mask),
            1.0 - encoded.mask,
            labels,
            1.0 - within(count, labels.shape[1]),
            blank_id=BLANK,
        )
        total = jnp.where(used, losses, 0.0).sum()
        rows = used.sum().astype(jnp.float32)
        characters = jnp.where(used, count, 0).sum().astype(jnp.float32)
        metrics = {
            "per_character": (total, characters),
            "per_utterance": (total, rows),
            "too_long": counted(~fits, whole),
            "used_rows": counted(used),
            # A network that has learnt nothing writes blanks alone, and one that has few of them.
            "blank_share": counted(logits.argmax(-1) == BLANK, encoded.mask),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, characters if self.average == "characters" else rows), metrics)

    def log_probabilities(self, nets, batch) -> tuple[jax.Array, jax.Array]:
        """(log p float32 [B, T, V] of every id at every state, number of states int32 [B])."""
        encoded = self.hear(nets, batch)
        logits = nets(self.head, encoded.tokens).astype(jnp.float32)
        return jax.nn.log_softmax(logits), encoded.mask.sum(-1)


def states_needed(labels: jax.Array, count: jax.Array) -> jax.Array:
    """int32 [B]: the shortest path's states; between two equal labels there must be a blank."""
    twice = (labels[:, 1:] == labels[:, :-1]) & within(count - 1, labels.shape[1] - 1)
    return count + twice.sum(-1)
