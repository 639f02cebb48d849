from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            WaveEncoder,
            width=16,
            depth=1,
            heads=2,
            channels=8,
            kernels=(10, 4, 4),
            strides=(5, 4, 4),
            positions=4,
            groups=2,
        ),
        "quantiser": spec(ProductQuantiser, groups=2, codes=6, dim=8),
        "wav2vec2_head": spec(Projection, features=8),
        "wav2vec2_target_head": spec(Projection, features=8),
    },
    objective=spec(Wav2Vec2, source="stream", span=2, negatives=4),
    batch=batches.waveform(),
)
