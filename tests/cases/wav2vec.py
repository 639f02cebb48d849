from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.objectives.speech.wav2vec import Wav2Vec
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            WaveContextEncoder,
            width=8,
            channels=6,
            kernels=(10, 8, 4),
            strides=(5, 4, 4),
            compress=True,
            context="convolution",
            context_kernels=(2, 3),
            skip=True,
        ),
        "wav2vec_head": spec(StepHead, steps=3, features=6),
    },
    objective=spec(Wav2Vec, source="stream", steps=3, first=2, negatives=4),
    batch=batches.waveform(),
)
