from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.tera import Tera
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=1,
            heads=2,
            stride=2,
            bands=batches.BANDS,
            frames=batches.FRAMES,
        ),
        "tera_head": spec(Projection, features=2 * batches.BANDS, hidden=16),
    },
    objective=spec(Tera, source="stream", rate=0.3, span=4, noise_rate=0.5),
    batch=batches.mel(),
)
