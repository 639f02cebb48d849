import numpy as np

from taichu_jax.config import spec
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.code_decoder import CodeDecoder
from taichu_jax.models.residual_quantiser import ResidualQuantiser
from taichu_jax.objectives.multimodal.opt_audio_reconstruction import OPTAudioReconstruction
from taichu_jax.ops.delay import step_count
from tests import batches, light
from tests.case import Case

STRIDE, STAGES, CODES, LANGUAGES = 8, 2, 12, 3
CASE = Case(
    networks=light.NETWORKS
    | {
        "audio_tokeniser": spec(
            MelTokeniser,
            width=8,
            depth=1,
            stride=STRIDE,
            bands=batches.BANDS,
            quantiser=spec(ResidualQuantiser, stages=STAGES, codes=CODES, dim=4),
        ),
        "audio_code_decoder": spec(
            CodeDecoder,
            entries=CODES,
            length=step_count(batches.FRAMES // STRIDE, STAGES, ends=True),
            stages=STAGES,
            ends=True,
            languages=LANGUAGES,
            width=light.WIDTH,
            depth=1,
            heads=2,
        ),
    },
    objective=spec(OPTAudioReconstruction, source="stream", frames="mel"),
    batch=batches.triplets() | {"lang": (np.arange(8) % LANGUAGES).astype(np.int32)},
    frozen=("audio_tokeniser",),
)
