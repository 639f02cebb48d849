from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.ctc import CTC
from taichu_jax.ops.spec_augment import SpecAugment
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=1,
            heads=2,
            stride=2,
            bands=batches.BANDS,
            frames=batches.FRAMES,
        ),
        "ctc_head": spec(Projection, features=batches.VOCAB),
    },
    objective=spec(
        CTC,
        source="stream",
        augment=spec(SpecAugment, time_width=4, band_width=4),
        freeze_front_end=True,
    ),
    batch=batches.text() | batches.mel(),
)
