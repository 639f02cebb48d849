from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.data2vec import Data2VecAudio
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=2,
            heads=2,
            stride=2,
            bands=batches.BANDS,
            frames=batches.FRAMES,
        ),
        "data2vec_head": spec(Projection, features=16),
    },
    objective=spec(Data2VecAudio, source="stream", input="mel", average=2, span=2),
    batch=batches.mel(),
)
