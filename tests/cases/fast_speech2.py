import numpy as np

from taichu_jax.config import spec
from taichu_jax.models.aligner import Aligner
from taichu_jax.models.fast_speech import FastSpeech
from taichu_jax.objectives.speech.fast_speech2 import FastSpeech2
from tests import batches
from tests.case import Case

BANDS = 12

CASE = Case(
    networks={
        "speech": spec(
            FastSpeech,
            vocab_size=batches.VOCAB,
            languages=3,
            width=8,
            encoder_depth=1,
            decoder_depth=1,
            heads=2,
            hidden=8,
            sizes=(3, 1),
            dropout=0.0,
            predictor_width=8,
            predictor_layers=1,
            post_layers=1,
            post_width=8,
            post_size=3,
            bands=BANDS,
        ),
        "aligner": spec(Aligner, width=8, temperature=0.1, centred=True),
    },
    objective=spec(FastSpeech2, source="stream", bands=BANDS, binarisation=0.5),
    batch=batches.text()
    | batches.waveform()
    | {"lang": np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)},
)
