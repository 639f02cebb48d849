from taichu_jax.config import spec
from taichu_jax.models.codebook import Codebook
from taichu_jax.models.heads import Projection
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.wavlm import WavLM
from tests import batches
from tests.case import Case
from tests.cases.hubert import CODES, units

CASE = Case(
    networks={
        "speech": spec(
            WaveEncoder,
            width=16,
            depth=2,
            heads=2,
            channels=8,
            kernels=(10, 4, 4),
            strides=(5, 4, 4),
            positions=4,
            groups=2,
            relative_position="gated",
        ),
        "wavlm_head": spec(Projection, features=8),
        "wavlm_codebook": spec(Codebook, codes=CODES, dim=8),
    },
    # 1,600 samples and tokens every 80: 200 tokens a second, and as many units.
    objective=spec(WavLM, source="stream", span=2, mixing=0.8, noise=0.4, unit_rate=200.0),
    batch=batches.waveform() | {"units": units(20)},
)
