from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.mockingjay import Mockingjay
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=2,
            heads=2,
            stride=3,
            bands=batches.BANDS,
            frames=batches.FRAMES,
            shared_layers=True,
        ),
        "mockingjay_head": spec(Projection, features=3 * batches.BANDS, hidden=16),
    },
    objective=spec(Mockingjay, source="stream", rate=0.3, span=4),
    batch=batches.mel(),
)
