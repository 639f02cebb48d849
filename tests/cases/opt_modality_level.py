from taichu_jax.config import spec
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from tests import batches, trimodal
from tests.case import Case

CASE = Case(
    networks=trimodal.ENCODERS | trimodal.FUSION | trimodal.DECODER,
    objective=spec(OPTModalityLevel, source="stream"),
    batch=batches.triplets(),
)
