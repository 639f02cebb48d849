"""TERA (time, frequency and magnitude, three layers) on the stamps' voices.

    python launch/train.py --config configs/speech/tera_stamps.py

Alterations and number of layers: the authors' configuration with all three. Everything but the
alterations is as in mockingjay_stamps, so that the two compare; the authors have one frame to a token,
three here take a third of the time.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.tera import Tera

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
        "tera_head": spec(Projection, features=STRIDE * BANDS, hidden=WIDTH),
    }
    objectives = {"tera": spec(Tera, source="voices")}
    return on_stamps(
        "tera_stamps", networks, objectives, steps=steps, peak=5e-4, b2=0.999, clip=5.0
    )
