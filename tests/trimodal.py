"""The smallest tri-modal model, shared by the cases of the multimodal objectives."""

from taichu_jax.config import spec
from taichu_jax.models.fusion import CrossModalEncoder
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.models.vision import ViT
from tests.batches import BANDS, FRAMES, LENGTH, SIZE, VOCAB

WIDTH, PATCH, STRIDE = 16, 8, 4
_COMMON = {"width": WIDTH, "depth": 1, "heads": 2}

ENCODERS = {
    "text": spec(TextEncoder, vocab_size=VOCAB, length=LENGTH, **_COMMON),
    "image": spec(ViT, size=SIZE, patch=PATCH, **_COMMON),
    "audio": spec(SpeechEncoder, bands=BANDS, frames=FRAMES, stride=STRIDE, **_COMMON),
}
FUSION = {"fusion": spec(CrossModalEncoder, lengths=(LENGTH, 4, FRAMES // STRIDE), **_COMMON)}
PROJECTIONS = {f"{name}_projection": spec(Projection, features=8) for name in ENCODERS}
SCALE = {"scale": spec(LogitScale)}
DECODER = {"text_decoder": spec(TextDecoder, vocab_size=VOCAB, length=LENGTH, **_COMMON)}
PREDICTIONS = {
    "image_prediction": spec(Projection, features=PATCH * PATCH * 3, hidden=WIDTH),
    "audio_prediction": spec(Projection, features=STRIDE * BANDS, hidden=WIDTH),
}
MATCHING = {"matching": spec(Projection, features=5, hidden=WIDTH)}
