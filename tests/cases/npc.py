from taichu_jax.config import spec
from taichu_jax.models.codes import GroupQuantiser
from taichu_jax.models.heads import Projection
from taichu_jax.models.local_context import LocalContextEncoder
from taichu_jax.objectives.speech.npc import NonAutoregressivePredictiveCoding
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(LocalContextEncoder, width=8, blocks=2, kernel=9, mask=3),
        "quantiser": spec(GroupQuantiser, groups=2, codes=6),
        "npc_head": spec(Projection, features=batches.BANDS),
    },
    objective=spec(NonAutoregressivePredictiveCoding, source="stream"),
    batch=batches.mel(),
)
