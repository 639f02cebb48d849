"""DeCoAR 2.0 (masked frames through a codebook) on the stamps' voices.

    python launch/train.py --config configs/speech/decoar2_stamps.py

Codes 2 x 320 and diversity 0.1: the paper; the share of hidden steps: wav2vec 2.0. Two frames to a token
(the paper has one) halve the length, and spans of 10 tokens are the paper's 20 frames. The Gumbel
temperature falls within this run's steps instead of 400,000. Size, batch and learning rate: ours, for two
cores.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.decoar2 import DeCoAR2
from taichu_jax.ops.schedules import Exponential

WIDTH, STRIDE = 128, 2


def get_config(steps=2000):
    networks = {
        "speech": spec(
            SpeechEncoder,
            width=WIDTH,
            depth=4,
            heads=4,
            stride=STRIDE,
            frames=FRAMES,
            dropout=0.1,
        ),
        "quantiser": spec(ProductQuantiser, groups=2, codes=320, dim=WIDTH),
        "decoar2_head": spec(Projection, features=STRIDE * BANDS, hidden=WIDTH),
    }
    gumbel = spec(Exponential, start=2.0, rate=0.25 ** (1 / steps), floor=0.5)
    objectives = {"decoar2": spec(DeCoAR2, source="voices", span=20 // STRIDE, gumbel=gumbel)}
    return on_stamps("decoar2_stamps", networks, objectives, steps=steps, batch_size=16, peak=5e-4)
