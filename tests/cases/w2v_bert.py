"""Alone, so with a quantiser that has a loss of its own; in w2v-BERT the other half trains it."""

from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import KmeansQuantiser
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.w2v_bert import MaskedCodes
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=2,
            heads=2,
            stride=2,
            bands=batches.BANDS,
            frames=batches.FRAMES,
        ),
        "quantiser": spec(KmeansQuantiser, groups=2, codes=6, dim=8),
        "codes_head": spec(Projection, features=12),
    },
    objective=spec(MaskedCodes, source="stream", span=2, commitment=1.0),
    batch=batches.mel(),
)
