"""wav2vec 2.0 from the waveform, small, on the stamps' voices.

    python launch/train.py --config configs/speech/wav2vec2_stamps.py

Masking, distractors, temperatures, diversity: the paper; the Gumbel temperature falls within this
run's steps instead of 400,000. Size, batch and learning rate: ours, for two cores.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from taichu_jax.ops.schedules import Exponential

COMPARED = 64


def get_config(steps=2000):
    networks = {
        "speech": spec(
            WaveEncoder, width=128, depth=4, heads=4, channels=64, positions=32, groups=8
        ),
        "quantiser": spec(ProductQuantiser, groups=2, codes=64, dim=64),
        "wav2vec2_head": spec(Projection, features=COMPARED),
        "wav2vec2_target_head": spec(Projection, features=COMPARED),
    }
    gumbel = spec(Exponential, start=2.0, rate=0.25 ** (1 / steps), floor=0.5)
    objectives = {"wav2vec2": spec(Wav2Vec2, source="voices", gumbel=gumbel)}
    return on_stamps(
        "wav2vec2_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=16,
        audio="waveform",
        peak=5e-4,
    )
