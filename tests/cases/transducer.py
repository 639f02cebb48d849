from taichu_jax.config import spec
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.transducer import Joiner, Predictor
from taichu_jax.objectives.speech.transducer import Transducer
from tests import batches
from tests.case import Case

CASE = Case(
    networks={
        "speech": spec(
            SpeechEncoder,
            width=16,
            depth=1,
            heads=2,
            bands=batches.BANDS,
            frames=batches.FRAMES,
        ),
        "predictor": spec(Predictor, vocab_size=batches.VOCAB, width=8),
        "joiner": spec(Joiner, vocab_size=batches.VOCAB, hidden=8),
    },
    objective=spec(Transducer, source="stream"),
    batch=batches.text() | batches.mel(),
)
