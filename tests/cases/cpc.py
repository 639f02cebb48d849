import numpy as np

from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.objectives.speech.cpc import ContrastivePredictiveCoding
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            WaveContextEncoder, width=8, channels=6, kernels=(10, 8, 4), strides=(5, 4, 4)
        ),
        "cpc_head": spec(StepHead, steps=3, features=6, bias=False),
    },
    objective=spec(ContrastivePredictiveCoding, source="stream", steps=3, count=5),
    batch=batches.waveform() | {"lang": np.array([3, 1, 3, 7, 1, 3, 2, 1], np.int32)},
)
