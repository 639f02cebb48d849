from taichu_jax.config import spec
from taichu_jax.objectives.multimodal.opt_token_level import OPTTokenLevel
from tests import batches, trimodal
from tests.case import Case

CASE = Case(
    networks=trimodal.ENCODERS | trimodal.FUSION | trimodal.PREDICTIONS,
    objective=spec(
        OPTTokenLevel,
        source="stream",
        vocab_size=batches.VOCAB,
        patch=trimodal.PATCH,
        stride=trimodal.STRIDE,
    ),
    batch=batches.triplets(),
)
