"""Tri-modal model of 1.2 billion parameters, compiled for TPU slices and never trained.

    python launch/compile.py --config configs/multimodal/taichu_stamps_1b.py --topology v5e:8x8
    python launch/train.py --config configs/multimodal/taichu_stamps_1b.py

What it needs per chip: experiments/scale/table.md. The second command is for such a slice.

Objectives: those of taichu_stamps_tiny.py, every example in each of them. Sizes: the released "1B"
configuration of Zidong Taichu (mindspore-ai/zidongtaichu): fusion 12 x 2048, 32 heads, 8,192 units;
ViT-B/32 at 448 pixels, 196 patches; 50 tokens of text and of speech; vocabulary 28,996; text decoder
6 x 1024, 16 heads; AdamW 5e-5, (0.9, 0.98), decay 0.01, clipping 5, warm-up 1,000 of a million steps.
There the encoders of text and speech are given or only embed; here they are trained, with BERT base's
size (12 x 768) and wav2vec 2.0 LARGE's (24 x 1024, over mel frames). Batch: ours. Data: the stamps, the
only ones that every machine can have.
"""

from taichu_jax.config import spec
from taichu_jax.data.languages import LANGUAGES
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.fusion import CrossModalEncoder
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextDecoder, TextEncoder
from taichu_jax.models.transformer import Stack
from taichu_jax.models.vision import MAEDecoder, ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.objectives.multimodal.opt_modality_level import OPTModalityLevel
from taichu_jax.objectives.multimodal.opt_sample_level import OPTSampleLevel
from taichu_jax.objectives.multimodal.opt_token_level import OPTTokenLevel
from taichu_jax.objectives.vision.mae import MaskedAutoencoder
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW
from taichu_jax.training.sharding import MeshShape

VOCAB = 28_996
IMAGE, PATCH = 448, 32  # pixels
SECONDS, STRIDE, BANDS = 2.0, 4, 80  # 50 tokens of speech
WORDS = 50  # text tokens
PATCHES, FRAMES = (IMAGE // PATCH) ** 2, int(100 * SECONDS)
STEPS = 1_000_000


def get_config(width=2048, depth=12, heads=32, batch_size=1024, remat="full"):
    config = defaults()
    config.name = "taichu_stamps_1b"
    config.steps = STEPS
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB)
    config.streams = {
        "stamps": spec(
            Triplets,
            batch_size=batch_size,
            image_size=IMAGE,
            text_length=WORDS,
            seconds=SECONDS,
            mel_bands=BANDS,
            trim=True,
        )
    }
    stack = spec(Stack, remat=remat, scan=True)
    base = {"width": 768, "depth": 12, "heads": 12, "stack": stack}
    speech = {"width": 1024, "depth": 24, "heads": 16, "stack": stack}
    decoder = {"width": 1024, "depth": 6, "heads": 16, "stack": stack}
    fusion = {"width": width, "depth": depth, "heads": heads, "stack": stack}
    config.networks = {
        "text": spec(TextEncoder, vocab_size=VOCAB, length=WORDS, **base),
        "image": spec(ViT, size=IMAGE, patch=PATCH, **base),
        "audio": spec(SpeechEncoder, frames=FRAMES, stride=STRIDE, bands=BANDS, **speech),
        "fusion": spec(CrossModalEncoder, lengths=(WORDS, PATCHES, FRAMES // STRIDE), **fusion),
        "text_decoder": spec(
            TextDecoder, vocab_size=VOCAB, length=WORDS, languages=len(LANGUAGES), **decoder
        ),
        "image_decoder": spec(
            MAEDecoder, width=512, depth=8, heads=16, patch=PATCH, patches=PATCHES, stack=stack
        ),
        "text_projection": spec(Projection, features=512),
        "image_projection": spec(Projection, features=512),
        "audio_projection": spec(Projection, features=512),
        "scale": spec(LogitScale),
        "image_prediction": spec(Projection, features=PATCH**2 * 3, hidden=width),
        "audio_prediction": spec(Projection, features=STRIDE * BANDS, hidden=width),
        "matching": spec(Projection, features=5, hidden=width),
    }
    config.objectives = {
        "alignment": spec(ContrastiveAlignment, source="stamps"),
        "mae": spec(MaskedAutoencoder, source="stamps", weight=0.3, patch=PATCH),
        "token": spec(
            OPTTokenLevel,
            source="stamps",
            weight=0.2,
            vocab_size=VOCAB,
            patch=PATCH,
            stride=STRIDE,
        ),
        "modality": spec(OPTModalityLevel, source="stamps", weight=0.3, masking="released"),
        "sample": spec(OPTSampleLevel, source="stamps", weight=0.3),
    }
    rate = spec(WarmupCosine, peak=5e-5, warmup=1000, steps=STEPS)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01, clip=5.0)
    config.mesh = spec(MeshShape, data=-1, fsdp=8)
    return config
