from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.recurrent import RecurrentEncoder
from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(RecurrentEncoder, width=8, depth=2),
        "apc_head": spec(Projection, features=batches.BANDS),
    },
    objective=spec(AutoregressivePredictiveCoding, source="stream"),
    batch=batches.mel(),
)
