from taichu_jax.config import spec
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from tests import batches, trimodal
from tests.case import Case

CASE = Case(
    networks=trimodal.ENCODERS | trimodal.PROJECTIONS | trimodal.SCALE,
    objective=spec(ContrastiveAlignment, source="stream"),
    batch=batches.triplets(),
)
