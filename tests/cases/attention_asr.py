from taichu_jax.config import spec
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder
from taichu_jax.objectives.speech.attention_asr import AttentionRecognition
from tests import batches
from tests.case import Case

SIZE = {"width": 16, "depth": 1, "heads": 2}

CASE = Case(
    networks={
        "speech": spec(SpeechEncoder, bands=batches.BANDS, frames=batches.FRAMES, **SIZE),
        "text_decoder": spec(TextDecoder, vocab_size=batches.VOCAB, length=batches.LENGTH, **SIZE),
    },
    objective=spec(AttentionRecognition, source="stream"),
    batch=batches.text() | batches.mel(),
)
