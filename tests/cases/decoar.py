from taichu_jax.config import spec
from taichu_jax.models.bidirectional import BidirectionalEncoder, SliceHead
from taichu_jax.objectives.speech.decoar import DeCoAR
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(BidirectionalEncoder, width=8, depth=2),
        "decoar_head": spec(SliceHead, frames=5, bands=batches.BANDS, hidden=6),
    },
    objective=spec(DeCoAR, source="stream", ahead=4),
    batch=batches.mel(),
)
