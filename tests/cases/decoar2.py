from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.decoar2 import DeCoAR2
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder, width=16, depth=1, heads=2, stride=2, bands=batches.BANDS, frames=32
        ),
        "quantiser": spec(ProductQuantiser, groups=2, codes=6, dim=8),
        "decoar2_head": spec(Projection, features=2 * batches.BANDS, hidden=8),
    },
    objective=spec(DeCoAR2, source="stream", span=3),
    batch=batches.mel(),
)
