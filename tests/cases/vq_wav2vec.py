from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.objectives.speech.vq_wav2vec import VQWav2Vec
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
            activation="gelu",
            context="convolution",
            context_kernels=(2, 3),
            quantiser=spec(ProductQuantiser, groups=2, codes=5, dim=4, hidden=8, shared=True),
        ),
        "vq_wav2vec_head": spec(StepHead, steps=3, features=4),
    },
    objective=spec(VQWav2Vec, source="stream", steps=3, negatives=4, diversity=0.1),
    batch=batches.waveform(),
)
