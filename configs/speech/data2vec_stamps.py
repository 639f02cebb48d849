"""data2vec on log-mel frames of the stamps' voices: regress what the averaged model sees unmasked.

    python launch/train.py --config configs/speech/data2vec_stamps.py

Targets, spans and loss: the paper; the decay rises within this run's steps. Size, learning rate:
ours, for two cores.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.base import Teacher
from taichu_jax.objectives.speech.data2vec import Data2VecAudio
from taichu_jax.ops.schedules import Linear

WIDTH = 128


def get_config(steps=2000):
    networks = {
        "speech": spec(SpeechEncoder, width=WIDTH, depth=4, heads=4, stride=2, frames=FRAMES),
        "data2vec_head": spec(Projection, features=WIDTH),
    }
    teacher = spec(
        Teacher, nets=("speech",), decay=spec(Linear, start=0.99, end=0.999, steps=steps)
    )
    objectives = {
        "data2vec": spec(Data2VecAudio, source="voices", input="mel", average=4, teacher=teacher)
    }
    return on_stamps("data2vec_stamps", networks, objectives, steps=steps, peak=5e-4)
