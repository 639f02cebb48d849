"""Denoising audio reconstruction: what OPT does for text and pictures (arXiv 2107.00249), for the voice.

    L_DAR = - E sum_i sum_s log P(c_is | c_<i, c_i,<s, T, V, A)

c are the codes of the recording from a residual tokeniser that was trained before and stays as it is.
The paper has no such term. Stages are written one step apart (ops/delay.py), and the first stage writes
an end behind the last code. Whole modalities of [T, V, A] are masked, so the decoder learns to speak from
any subset.

Batch: see `Encoders`; `frames`, the field float [B, F, M] with the log-mel frames that are to be heard:
neither normalised by utterance nor with noise or masks (`clean_mel=True` of a stream); `mel_lengths`
int32 [B], in frames; `lang` int32 [B] where the decoder has languages. Examples without a recording, or
with nothing left to read, do not count, nor does what is behind the end. A recording that the stream cut
off ends where it was cut.
Networks: the encoders, the fusion, `decoder` (a `CodeDecoder` with `ends` and as many stages as the
tokeniser, or only its first ones), `tokeniser` (a `MelTokeniser`), of which nothing is learnt here:

    config.restore.audio_tokeniser = "runs/mel_codec_stamps:speech"
    Rule(pattern="^audio_tokeniser/", rate=0.0)

Defaults: those of `OPTImageReconstruction`. `masking="released"` hides the voice always, and of the
others the text, the image or neither with 0.3, 0.3 and 0.4.
Checked against: the formula in NumPy loops over recordings, steps and stages; the exact distribution of
subsets; the tokeniser's weights bit for bit after steps.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.objectives.multimodal.code_reconstruction import CodeReconstruction


@dataclasses.dataclass(frozen=True, kw_only=True)
class OPTAudioReconstruction(CodeReconstruction):
    """See the module's docstring.

    Attributes:
      frames: the batch field whose codes are written.
    """

    decoder: str = "audio_code_decoder"
    tokeniser: str = "audio_tokeniser"
    frames: str = "clean_mel"

    @property
    def own(self):
        return "audio"

    def codes(self, nets, batch):
        lengths = batch["mel_lengths"]
        codes = nets.frozen(self.tokeniser, batch[self.frames], lengths, method="codes")
        # Not computed, as nobody reads it. It is asked for so that this run has all of the tokeniser's
        # weights, and can make sound of what its decoder writes without the tokeniser's run.
        nets.frozen(self.tokeniser, codes, method="decode")
        return codes, nets.frozen(self.tokeniser, lengths, method="token_count")
