"""Mockingjay (three layers, three frames to a token) on the stamps' voices: fill in hidden spans.

    python launch/train.py --config configs/speech/mockingjay_stamps.py

Three layers and three frames to a token: the paper's base model. Spans, betas, clipping: the authors'
code. Width 128 instead of 768, no dropout, learning rate: ours, for two cores.
2,000 steps, 9 minutes beside other programs: experiments/LOG.md; 400 of 16: experiments/speech_ssl.
"""

from configs.speech._voices import BANDS, FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.mockingjay import Mockingjay

WIDTH, STRIDE = 128, 3


def get_config(steps=2000):
    networks = {
        "speech": spec(
            SpeechEncoder,
            width=WIDTH,
            depth=3,
            heads=4,
            stride=STRIDE,
            frames=FRAMES,
        ),
        "mockingjay_head": spec(Projection, features=STRIDE * BANDS, hidden=WIDTH),
    }
    objectives = {"mockingjay": spec(Mockingjay, source="voices")}
    return on_stamps(
        "mockingjay_stamps", networks, objectives, steps=steps, peak=5e-4, b2=0.999, clip=5.0
    )
