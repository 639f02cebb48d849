from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.recurrent import VQRecurrentEncoder
from taichu_jax.objectives.speech.vq_apc import VectorQuantisedAPC
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(VQRecurrentEncoder, width=8, depth=2, codes=6, after=1),
        "vq_apc_head": spec(Projection, features=batches.BANDS),
    },
    objective=spec(VectorQuantisedAPC, source="stream"),
    batch=batches.mel(),
)
