"""OPT's modality level: denoising image reconstruction (arXiv 2107.00249, eq. 10).

    L_DIR = - E sum_i log P(c_i | c_<i, T, V, A)

c are the codes of the picture, row by row, from a tokeniser that was trained before and stays as it is.
Whole modalities of [T, V, A] are masked, so the decoder learns to draw from any subset: from words,
from a voice, or from both.

Batch: see `Encoders`. The codes are those of `image` as it is in the batch: a stream that changes
colours asks for changed colours. Examples without a picture, or with nothing left to read, do not count.
Networks: the encoders, the fusion, `decoder` (a `CodeDecoder` of one stage), `tokeniser` (models/
image_tokeniser.py), of which nothing is learnt here:

    config.restore.image_tokeniser = "runs/vqvae_stamps"    Rule(pattern="^image_tokeniser/", rate=0.0)

Defaults: p = 0.3 from the paper. `masking="released"` is what the released code does instead: the picture
is always masked, and of the others the text, the audio or neither with 0.3, 0.3 and 0.4; `smoothing` is
0.1 there. The paper's tokeniser is a dVAE, the released one a VQ-VAE; any with the methods will do.
Checked against: the formula in NumPy; the exact distribution of subsets; the tokeniser's weights bit for
bit after steps.
"""

from __future__ import annotations

import dataclasses

from taichu_jax.objectives.multimodal.code_reconstruction import CodeReconstruction


@dataclasses.dataclass(frozen=True, kw_only=True)
class OPTImageReconstruction(CodeReconstruction):
    """See the module's docstring."""

    decoder: str = "image_code_decoder"
    tokeniser: str = "image_tokeniser"

    @property
    def own(self):
        return "image"

    def codes(self, nets, batch):
        codes = nets.frozen(self.tokeniser, batch["image"], method="codes")
        # Not computed, as nobody reads it. It is asked for so that this run has all of the tokeniser's
        # weights, and can show what its decoder writes without the tokeniser's run.
        nets.frozen(self.tokeniser, codes, method="decode")
        return codes.reshape(len(codes), -1, 1), None
