"""Hidden spans of speech, reconstructed: Mockingjay (arXiv 1910.12638), Audio ALBERT (2005.08575).

    L = 1/|C| sum_{(t, m) in C} | x_{t, m} - y_{t, m} |,    y = head(h(altered x))

C are all bands of the frames in the chosen spans: 15 % of the utterance, in spans of 7 that may
overlap. The network sees zeros there (80 % of the utterances), other spans of the utterance (10 %), or
nothing amiss (10 %); one draw per utterance decides (ops/alterations.py). Utterances too short for a
span add nothing. Audio ALBERT is this loss with one block's weights in all layers:
`SpeechEncoder(shared_layers=True)`.

Batch: `mel` float [B, F, M], log-mel frames at 100 per second, every band with mean 0 (zero hides
nothing otherwise); `mel_lengths` int32 [B], in frames.
Networks: `encoder`, blind to nothing (`SpeechEncoder`); `head`, from states to stride * M values, the
frames of a token one after the other. The authors' are SpeechEncoder(front_end='linear') and
Projection(hidden=width, norm='after'); the defaults of both differ, and their blocks are post-norm
unless pre_layer_norm is set.
Defaults: 15 %, 7 frames and 80/10/10 from the authors' code (s3prl); the paper stacks three frames to
a token, which is stride=3, and hides whole tokens, where spans here are laid on frames.
Checked against: a NumPy loop over cells given the same draw, with several frames per token; exact
statistics of the alteration; model and loss of s3prl 0.4.18 (pre_layer_norm) with the same weights and
mask, with and without shared layers: hidden states, predictions, loss, all gradients within 1e-4.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.alterations import alter_time, reconstruction_error
from taichu_jax.ops.lengths import within
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mockingjay(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head: the networks' names.
      rate, span: share of the frames that is chosen and length of the spans, in frames.
      zero_rate, random_rate: probabilities that an utterance's spans are zeroed, or replaced.
    """

    encoder: str = "speech"
    head: str = "mockingjay_head"
    rate: float = 0.15
    span: int = 7
    zero_rate: float = 0.8
    random_rate: float = 0.1

    def loss(self, nets, batch, memory, rng):
        mel, lengths = batch["mel"], batch["mel_lengths"]
        altered, where = alter_time(
            fold_name(rng, "time"),
            mel,
            lengths,
            rate=self.rate,
            span=self.span,
            zero_rate=self.zero_rate,
            random_rate=self.random_rate,
        )
        encoded = nets(self.encoder, altered, lengths)
        predicted = nets(self.head, encoded.tokens)
        total, count = reconstruction_error(predicted, mel, lengths, where)
        metrics = {
            # what predicting zero, the mean of every band, would cost
            "mean_error": counted(jnp.abs(mel), where),
            "altered_share": counted(where[..., 0], within(lengths, mel.shape[1])),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)
