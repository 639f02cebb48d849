"""Recognition by attention: a decoder that listens while it writes (arXiv 1508.01211).

    L = - 1/N sum_i sum_v q_i(v) log P(v | y_1 .. y_{i-1}, h(x)),    q_i = (1 - s) [v = y_i] + s / V

The listener is any speech encoder, the speller a causal transformer that attends over its states. The
paper's are recurrent, it trains with a tenth of the inputs sampled from the model instead of the
transcript, and has no label smoothing (s comes from arXiv 1612.02695, spread evenly here as in arXiv
1512.00567). [SEP] ends the text and is predicted too.

Batch: `mel` float [B, F, M] and `mel_lengths` int32 [B], in frames (or `audio` and `audio_lengths`, in
samples); `text` int32 [B, L] as [CLS] ... [SEP], `text_mask` bool [B, L]; with `told`, `lang` int32 [B].
Networks: `encoder`; `decoder`, a `TextDecoder`.
Defaults: s = 0.1 as in ESPnet; the freezing schedule and SpecAugment are off, see `Recognition`.
Checked against: the formula in NumPy; no prediction depends on what follows.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.objectives.base import Loss, counted, mean_of
from taichu_jax.objectives.speech.recognition import Recognition
from taichu_jax.ops.classification import cross_entropy
from taichu_jax.ops.monitors import feature_std


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionRecognition(Recognition):
    """See the module's docstring.

    Attributes:
      decoder: the text decoder's name.
      smoothing: s.
      told: the decoder is told the language (its `languages` is not 0).
    """

    decoder: str = "text_decoder"
    smoothing: float = 0.1
    told: bool = False

    def loss(self, nets, batch, memory, rng):
        encoded = self.hear(nets, batch, rng)
        tokens, mask = batch["text"], batch["text_mask"]
        language = {"language": batch["lang"]} if self.told else {}
        logits = nets(
            self.decoder, tokens[:, :-1], mask[:, :-1], encoded.tokens, encoded.mask, **language
        )
        used = self.whole(batch)
        where = mask[:, 1:] & used[:, None]
        total, right, count = cross_entropy(logits, tokens[:, 1:], where, self.smoothing)
        plain, *_ = cross_entropy(logits, tokens[:, 1:], where)
        metrics = {
            "accuracy": (right, count),
            "per_token": (plain, count),
            "used_rows": counted(used),
            "feature_std": feature_std(encoded.tokens, encoded.mask),
        }
        return Loss(mean_of(total, count), metrics)
