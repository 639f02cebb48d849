"""wav2vec 2.0 from the waveform, small, on the stamps' voices.

    python launch/train.py --config configs/speech/wav2vec2_stamps.py

Masking, distractors, temperatures, diversity: the paper; the Gumbel temperature falls within this
run's steps instead of 400,000. Size, batch and learning rate: ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Recordings
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from taichu_jax.ops.schedules import Exponential, WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

COMPARED = 64


def get_config():
    config = defaults()
    config.name = "wav2vec2_stamps"
    config.steps = 2000
    voices = spec(Recordings, batch_size=16, seconds=2.0, audio="waveform")
    config.streams = {"voices": voices}
    config.networks = {
        "speech": spec(
            WaveEncoder, width=128, depth=4, heads=4, channels=64, positions=32, groups=8
        ),
        "quantiser": spec(ProductQuantiser, groups=2, codes=64, dim=64),
        "wav2vec2_head": spec(Projection, features=COMPARED),
        "wav2vec2_target_head": spec(Projection, features=COMPARED),
    }
    config.objectives = {
        "wav2vec2": spec(
            Wav2Vec2, source="voices", gumbel=spec(Exponential, start=2.0, rate=0.9993, floor=0.5)
        )
    }
    rate = spec(WarmupCosine, peak=5e-4, warmup=200, steps=config.steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01)
    config.evaluations = {"language": spec(LanguageProbe, stream=voices, encoder="speech")}
    return config
