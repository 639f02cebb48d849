from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.objectives.speech.pase_discrimination import PaseDiscrimination
from tests import batches
from tests.case import Case
from tests.cases.pase_regression import ENCODER

CASE = Case(
    networks={"speech": ENCODER, "lim_head": spec(Projection, features=1, hidden=8)},
    objective=spec(
        PaseDiscrimination, source="stream", mode="local", head="lim_head", distorted=True
    ),
    batch=batches.waveform(),
)
