"""Units of masked speech over which somebody else speaks: WavLM (arXiv 2110.13900).

    L = - 1/|M| sum_{t in M} log p(z_t | mixed speech without M),    p as in HuBERT (arXiv 2106.07447)

To some utterances part of another one, or noise, is added (ops/mixing.py); the units stay those of the
first speaker, so the network has to tell the two apart. What is added never covers more than half of
an utterance. The encoder's attention has a gated relative position bias: it is a setting of the
network, `relative_position='gated'` (models/relative_position.py).

Batch: `audio` float [B, T] samples of zero mean and unit variance with `audio_lengths` int32 [B], in
samples; `units` int32 [B, K] at `unit_rate` per second, -1 where there is none (`Recordings(units=DIR)`).
Mixed audio is not normalised again.
Networks: `encoder` with the methods features and contextualise (`WaveEncoder`); `head`, linear, 256
wide; `codebook` (`Codebook`).
Defaults: probability 0.2, noise in a tenth of these, -5 to 5 dB between speakers and -5 to 20 dB over
noise from the paper, Algorithm 1 and section IV; the noise is white, theirs is recorded (the DNS
challenge's). The rest as HuBERT, whose recipe the paper follows; fairseq's penalty of 10 included.
Checked against: NumPy loops over steps and codes, and over the samples of the mixture, given the same
draws; exact statistics of the mixture; WavLMModel of transformers 5.23 (pre-norm, layer norm) under
HuBERT's loss in PyTorch, with the same weights and spans: hidden states, loss, all gradients within 1e-4,
and the buckets of distances up to 1,000 tokens.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from taichu_jax.objectives.base import Loss, Objective, counted, mean_of
from taichu_jax.ops.lengths import within
from taichu_jax.ops.mixing import mix_utterances
from taichu_jax.ops.monitors import feature_std
from taichu_jax.ops.random import fold_name
from taichu_jax.ops.spans import span_mask
from taichu_jax.ops.unit_prediction import code_scores, unit_losses, units_at_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class WavLM(Objective):
    """See the module's docstring.

    Attributes:
      encoder, head, codebook: the networks' names.
      unit_rate: of the field `units`, per second; the stream's.
      mixing: probability that something is added to an utterance.
      decibels: range of the ratio between the utterance and another one.
      noise: probability that what is added is noise.
      noise_decibels: range of the ratio between the utterance and noise.
      temperature: of the cosines.
      rate, span: density and length of the masked spans (ops/spans.py), in the encoder's steps.
      penalty: on the mean square of the front end's latents.
    """

    encoder: str = "speech"
    head: str = "wavlm_head"
    codebook: str = "wavlm_codebook"
    unit_rate: float = 100.0
    mixing: float = 0.2
    decibels: tuple[float, float] = (-5.0, 5.0)
    noise: float = 0.1
    noise_decibels: tuple[float, float] = (-5.0, 20.0)
    temperature: float = 0.1
    rate: float = 0.8
    span: int = 10
    penalty: float = 10.0

    def loss(self, nets, batch, memory, rng):
        lengths = batch["audio_lengths"]
        audio, added = mix_utterances(
            fold_name(rng, "mixing"),
            batch["audio"],
            lengths,
            probability=self.mixing,
            decibels=self.decibels,
            noise=self.noise,
            noise_decibels=self.noise_decibels,
        )
        latents, real = nets(self.encoder, audio, lengths, method="features")
        masked = span_mask(
            fold_name(rng, "spans"), real.sum(-1), real.shape[1], rate=self.rate, span=self.span
        )
        encoded = nets(self.encoder, latents, real, masked, method="contextualise")
        labels = units_at_tokens(
            batch["units"], real.shape[1], unit_rate=self.unit_rate, token_rate=encoded.rate
        )
        head, codes = nets(self.head, encoded.tokens), nets(self.codebook)
        scores = code_scores(head, codes, self.temperature)
        total, count, metrics = unit_losses(
            scores, labels, masked, real, on_masked=1.0, on_unmasked=0.0
        )
        energy = counted(jnp.square(latents.astype(jnp.float32)), real[..., None])
        metrics |= {
            "latent_energy": energy,
            "mixed_share": counted(added, within(lengths, audio.shape[1])),
            "feature_std": feature_std(encoded.tokens, masked),
        }
        return Loss(mean_of(total, count) + self.penalty * mean_of(*energy), metrics)
