"""Recurrent neural network transducer: RNN-T (arXiv 1211.3711; the tanh joiner from 1303.5778).

    L = - log p(y | x),    p(y | x) = sum over alignments of  prod p(k | t, u)

At node (t, u) of a lattice, t states heard and u labels written, the model goes on to the next state
(the blank) or writes the next label. Alignments go from (0, 0) to a last blank at (T - 1, U); their sum
is the forward variable, see ops/lattice.py. Unlike CTC there may be more labels than states, and what is
written depends on what was written before.

Batch: `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames (or `audio` and `audio_lengths`, in
samples); `text` int32 [B, L] and `text_mask` bool [B, L]. Of the ids all but [CLS], [SEP] and [PAD] are
labels. The scores of all nodes are kept at once: B x T x (L - 1) x V numbers.
Networks: `encoder`; `predictor`, from labels [B, U] to states [B, U + 1, D]; `joiner`, from both to
scores [B, T, U + 1, V], where [PAD] is the blank (models/transducer.py).
Defaults: 'characters' as for CTC here; the paper sums over the training set. Its encoder is recurrent,
reads in both directions and is trained from nothing.
Checked against: the sum over all alignments, enumerated; finite differences of that.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from taichu_jax.config import choices
from taichu_jax.errors import UserError
from taichu_jax.objectives.base import Loss, counted, mean_of
from taichu_jax.objectives.speech.recognition import Recognition, transcript
from taichu_jax.ops.lattice import transducer_losses
from taichu_jax.ops.lengths import within
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.vocabulary import PAD

AVERAGES = ("characters", "utterances")
BLANK = PAD


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transducer(Recognition):
    """See the module's docstring.

    Attributes:
      predictor, joiner: the networks' names.
      average: 'characters' divides the batch's sum by its labels, 'utterances' by its rows.
    """

    predictor: str = "predictor"
    joiner: str = "joiner"
    average: str = "characters"

    def __post_init__(self):
        super().__post_init__()
        if self.average not in AVERAGES:
            raise UserError(f"average={self.average!r}; {choices(self.average, AVERAGES)}")

    def loss(self, nets, batch, memory, rng):
        encoded = self.hear(nets, batch, rng)
        labels, count = transcript(batch)
        labels = labels[:, :-1]  # [CLS] is in the row too, so the last place is never a label
        count = jnp.minimum(count, labels.shape[1])
        predictions = nets(self.predictor, labels)
        logits = nets(self.joiner, encoded.tokens, predictions).astype(jnp.float32)
        everything = jax.nn.logsumexp(logits, axis=-1)
        written = jnp.take_along_axis(logits[:, :, :-1], labels[:, None, :, None], axis=-1)[..., 0]
        frames = encoded.mask.sum(-1)
        losses = transducer_losses(
            logits[..., BLANK] - everything, written - everything[:, :, :-1], frames, count
        )
        used = self.whole(batch) & (frames > 0)
        total = jnp.where(used, losses, 0.0).sum()
        rows = used.sum().astype(jnp.float32)
        characters = jnp.where(used, count, 0).sum().astype(jnp.float32)
        metrics = {
            "per_character": (total, characters),
            "per_utterance": (total, rows),
            "used_rows": counted(used),
            "blank_share": counted(logits[:, :, 0].argmax(-1) == BLANK, encoded.mask),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
            "prediction_std": feature_std(predictions, within(count + 1, predictions.shape[1])),
        }
        return Loss(mean_of(total, characters if self.average == "characters" else rows), metrics)
