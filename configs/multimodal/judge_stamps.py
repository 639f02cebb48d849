"""A judge of what other runs generate: pictures, words and voices in one space, and nothing else.

    python launch/train.py --config configs/multimodal/judge_stamps.py

`evals/generation.py` asks it which candidate a generated picture or voice belongs to. It has its own
seed, sizes and weights, learns from the training split alone, and shares nothing with the runs that it
judges: their encoders would like what their own decoders make. Pictures of 64 pixels, as the decoders
make them; voices as the tri-modal configs hear them. Sizes and steps: ours, for two cores: 22 minutes
beside many other programs, up to 1.2 steps a second.
"""

from taichu_jax.config import spec
from taichu_jax.data.images import ImageAugment
from taichu_jax.data.streams import Triplets
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.evals.retrieval import Retrieval
from taichu_jax.models.heads import LogitScale, Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.vision import ViT
from taichu_jax.objectives.multimodal.alignment import ContrastiveAlignment
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

SEED = 2026
VOCAB = 2048
IMAGE, PATCH = 64, 8  # pixels
SECONDS, STRIDE, BANDS = 2.0, 4, 80  # of speech; mel frames (10 ms) per token
WORDS = 20  # text tokens


def get_config(width=160, depth=2, steps=800):
    config = defaults()
    config.name = "judge_stamps"
    config.seed = SEED
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB, dropout=0.1)
    augment = spec(ImageAugment, background=False, brightness=0.0, contrast=0.0, saturation=0.0)
    stamps = spec(
        Triplets,
        batch_size=64,
        image_size=IMAGE,
        text_length=WORDS,
        seconds=SECONDS,
        mel_bands=BANDS,
        trim=True,
        image_augment=augment,
    )
    config.streams = {"stamps": stamps}
    size = {"width": width, "depth": depth, "heads": width // 32}
    config.networks = {
        "text": spec(TextEncoder, vocab_size=VOCAB, length=WORDS, **size),
        "image": spec(ViT, size=IMAGE, patch=PATCH, **size),
        "audio": spec(SpeechEncoder, frames=int(100 * SECONDS), stride=STRIDE, bands=BANDS, **size),
        "text_projection": spec(Projection, features=width),
        "image_projection": spec(Projection, features=width),
        "audio_projection": spec(Projection, features=width),
        "scale": spec(LogitScale),
    }
    config.objectives = {"alignment": spec(ContrastiveAlignment, source="stamps")}
    rate = spec(WarmupCosine, peak=1e-3, warmup=100, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, weight_decay=0.1)
    config.checkpoint_every = 200
    config.evaluations = {"retrieval": spec(Retrieval, stream=stamps)}
    return config
