from taichu_jax.config import spec
from taichu_jax.models.audio_tokeniser import MelTokeniser
from taichu_jax.models.residual_quantiser import ResidualQuantiser
from taichu_jax.objectives.speech.mel_codec import MelCodec
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            MelTokeniser,
            width=8,
            depth=1,
            stride=4,
            bands=batches.BANDS,
            quantiser=spec(ResidualQuantiser, stages=3, codes=6, dim=4),
        )
    },
    objective=spec(MelCodec, source="stream", stages=3, codes=6, dim=4),
    batch=batches.mel(),
)
