"""Audio ALBERT (one block's weights in all layers) on the stamps' voices: Mockingjay's loss.

    python launch/train.py --config configs/speech/audio_albert_stamps.py

Everything but the shared weights is as in mockingjay_stamps, so that the two compare; the authors' code
has one frame to a token, three here take a third of the time.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
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
            shared_layers=True,
        ),
        "audio_albert_head": spec(Projection, features=STRIDE * BANDS, hidden=WIDTH),
    }
    objectives = {
        "audio_albert": spec(Mockingjay, source="voices", head="audio_albert_head"),
    }
    return on_stamps(
        "audio_albert_stamps", networks, objectives, steps=steps, peak=5e-4, b2=0.999, clip=5.0
    )
