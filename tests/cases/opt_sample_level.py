from taichu_jax.config import spec
from taichu_jax.objectives.multimodal.opt_sample_level import OPTSampleLevel
from tests import batches, trimodal
from tests.case import Case

CASE = Case(
    networks=trimodal.ENCODERS | trimodal.FUSION | trimodal.MATCHING,
    objective=spec(OPTSampleLevel, source="stream"),
    batch=batches.triplets(),
)
