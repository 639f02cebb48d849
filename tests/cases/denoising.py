import numpy as np

from taichu_jax.config import spec
from taichu_jax.models.encoder_decoder import EncoderDecoder
from taichu_jax.objectives.text.denoising import Denoising
from tests import batches
from tests.case import Case

TEXT = batches.text()
SENTENCES = 1 + np.arange(batches.LENGTH, dtype=np.int32) // 3

CASE = Case(
    networks={
        "text": spec(
            EncoderDecoder,
            vocab_size=batches.VOCAB,
            width=16,
            depth=1,
            decoder_depth=1,
            heads=2,
            length=batches.LENGTH,
            position_offset=2,
        )
    },
    objective=spec(Denoising, source="stream", permute=True),
    batch=TEXT | {"text_segments": np.where(TEXT["text_mask"], SENTENCES, 0).astype(np.int32)},
)
