"""wav2vec 2.0 LARGE, compiled for TPU slices and never trained.

    python launch/compile.py --config configs/speech/wav2vec2_stamps_large.py --topology v5e:16x16
    python launch/train.py --config configs/speech/wav2vec2_stamps_large.py

What it needs per chip: experiments/scale/table.md. The second command is for such a slice.

Transformer 24 x 1024 with 16 heads and 4,096 units, quantiser 2 x 320, compared in 768 dimensions, crops
of 20 seconds, about 2.7 hours a batch, learning rate, warm-up, Gumbel temperature down to 0.1: the
paper (arXiv 2006.11477, section 4.2). Layer norm in the front end: the authors' code for LARGE (fairseq).
Data: the stamps' voices, the only ones that every machine can have (1.4 seconds on average, the rest
is padding).
"""

from configs.speech._voices import whole
from taichu_jax.config import spec
from taichu_jax.data.streams import Recordings
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.transformer import Stack
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from taichu_jax.ops.schedules import Exponential, WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW
from taichu_jax.training.sharding import MeshShape

COMPARED, SECONDS, BATCH, STEPS = 768, 20.0, 512, 250_000


def get_config():
    config = defaults()
    config.name = "wav2vec2_stamps_large"
    config.steps = STEPS
    config.streams = {
        "voices": spec(
            Recordings,
            batch_size=BATCH,
            seconds=SECONDS,
            audio="waveform",
            audio_augment=whole(),
        )
    }
    config.networks = {
        "speech": spec(
            WaveEncoder,
            width=1024,
            depth=24,
            heads=16,
            norm="layer",
            stack=spec(Stack, remat="dots", scan=True),
        ),
        "quantiser": spec(ProductQuantiser, groups=2, codes=320, dim=COMPARED),
        "wav2vec2_head": spec(Projection, features=COMPARED),
        "wav2vec2_target_head": spec(Projection, features=COMPARED),
    }
    gumbel = spec(Exponential, start=2.0, rate=0.999995, floor=0.1)
    config.objectives = {"wav2vec2": spec(Wav2Vec2, source="voices", gumbel=gumbel)}
    rate = spec(WarmupCosine, peak=3e-4, warmup=int(0.08 * STEPS), steps=STEPS)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01)
    config.mesh = spec(MeshShape, data=-1, fsdp=8)
    return config
