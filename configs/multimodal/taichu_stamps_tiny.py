"""Tri-modal model on the Tux Paint stamps, small enough for a lunch break on two cores.

python launch/train.py --config configs/multimodal/taichu_stamps_tiny.py
"""

import os

from taichu_jax.config import spec
from taichu_jax.data.languages import LANGUAGES
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.fusion import CrossModalEncoder
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.objectives.multimodal.opt_sample_level import OPTSampleLevel
from taichu_jax.objectives.multimodal.opt_token_level import OPTTokenLevel
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

VOCAB, WIDTH, PATCH, STRIDE = (
    2048,
    int(os.environ.get("W", 128)),
    int(os.environ.get("P", 16)),
    int(os.environ.get("S", 4)),
)
IMAGE, WORDS, SECONDS = 64, 20, 2.0
PATCHES, FRAMES = (IMAGE // PATCH) ** 2, int(100 * SECONDS)


def get_config(parts="alignment,mae,token,modality,sample"):
    config = defaults()
    config.name = "taichu_stamps_tiny"
    config.steps = 1500
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB, dropout=0.1)
    stamps = spec(
        Triplets,
        batch_size=64,
        image_size=IMAGE,
        text_length=WORDS,
        seconds=SECONDS,
        trim=True,
    )
    config.streams = {"stamps": stamps}
    size = {"width": WIDTH, "depth": 2, "heads": 4}
    config.networks = {
        "text": spec(TextEncoder, vocab_size=VOCAB, length=WORDS, **size),
        "image": spec(ViT, size=IMAGE, patch=PATCH, **size),
        "audio": spec(SpeechEncoder, frames=FRAMES + 1, stride=STRIDE, **size),
        "image_decoder": spec(MAEDecoder, width=64, depth=1, patch=PATCH, patches=PATCHES),
        "fusion": spec(CrossModalEncoder, lengths=(WORDS, PATCHES, FRAMES // STRIDE + 1), **size),
        "text_decoder": spec(
            TextDecoder, vocab_size=VOCAB, length=WORDS, languages=len(LANGUAGES), **size
        ),
        "text_projection": spec(Projection, features=128),
        "image_projection": spec(Projection, features=128),
        "audio_projection": spec(Projection, features=128),
        "scale": spec(LogitScale),
        "image_prediction": spec(Projection, features=PATCH**2 * 3, hidden=WIDTH),
        "audio_prediction": spec(Projection, features=STRIDE * 80, hidden=WIDTH),
        "matching": spec(Projection, features=5, hidden=WIDTH),
    }
    config.objectives = {
        "alignment": spec(ContrastiveAlignment, source="stamps"),
        "mae": spec(MaskedAutoencoder, source="stamps", weight=0.3),
        "token": spec(
            OPTTokenLevel, source="stamps", vocab_size=VOCAB, patch=PATCH, stride=STRIDE, share=0.5
        ),
        "modality": spec(OPTModalityLevel, source="stamps", share=0.5),
        "sample": spec(OPTSampleLevel, source="stamps", share=0.5),
    }
    for name in list(config.objectives):
        if name not in parts.split(","):
            del config.objectives[name]
    config.optimizer = spec(
        AdamW,
        learning_rate=spec(WarmupCosine, peak=1e-3, warmup=100, steps=config.steps),
        weight_decay=0.1,
    )
    return config
