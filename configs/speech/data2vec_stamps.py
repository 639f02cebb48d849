"""data2vec on log-mel frames of the stamps' voices: regress what the averaged model sees unmasked.

    python launch/train.py --config configs/speech/data2vec_stamps.py

Targets, spans and loss: the paper; the decay rises within this run's steps. Size, learning rate:
ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Recordings
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.base import Teacher
from taichu_jax.objectives.speech.data2vec import Data2VecAudio
from taichu_jax.ops.schedules import Linear, WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

WIDTH, SECONDS = 128, 2.0


def get_config():
    config = defaults()
    config.name = "data2vec_stamps"
    config.steps = 2000
    voices = spec(Recordings, batch_size=32, seconds=SECONDS)
    config.streams = {"voices": voices}
    config.networks = {
        "speech": spec(
            SpeechEncoder, width=WIDTH, depth=4, heads=4, stride=2, frames=int(100 * SECONDS)
        ),
        "data2vec_head": spec(Projection, features=WIDTH),
    }
    teacher = spec(
        Teacher, nets=("speech",), decay=spec(Linear, start=0.99, end=0.999, steps=config.steps)
    )
    config.objectives = {
        "data2vec": spec(Data2VecAudio, source="voices", input="mel", average=4, teacher=teacher)
    }
    rate = spec(WarmupCosine, peak=5e-4, warmup=200, steps=config.steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01)
    config.evaluations = {"language": spec(LanguageProbe, stream=voices, encoder="speech")}
    return config
