from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.pase import PaseEncoder
from taichu_jax.objectives.speech.pase_regression import PaseRegression
from taichu_jax.ops.distortions import Distortions
from tests import batches
from tests.case import Case

ENCODER = spec(
    PaseEncoder,
    width=12,
    channels=(6, 8),
    kernels=(33, 11),
    strides=(20, 8),
    recurrent=8,
    # two of them: the rest would only be compiled
    distortions=spec(
        Distortions, reverberation=0.0, noise=1.0, overlap=0.0, gaps=0.0, stop_band=0.0
    ),
)

CASE = Case(
    networks={
        "speech": ENCODER,
        "mfcc_head": spec(Projection, features=3 * 2 * 5, hidden=8),
    },
    objective=spec(
        PaseRegression,
        source="stream",
        target="mfcc",
        head="mfcc_head",
        size=5,
        context=1,
        slopes=1,
        distorted=True,
    ),
    batch=batches.waveform(),
)
