"""VQ-APC (three GRU layers, a codebook of 128 behind the last) on the stamps' voices.

    python launch/train.py --config configs/speech/vq_apc_stamps.py

Shift 5, 128 codes behind the third layer, Gumbel temperature 0.5, dropout 0.1, clipping at 1: the
authors' README and code. Width 128 instead of 512 and the learning rate: ours, for two cores.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.recurrent import VQRecurrentEncoder
from taichu_jax.objectives.speech.vq_apc import VectorQuantisedAPC


def get_config(steps=2000):
    networks = {
        "speech": spec(VQRecurrentEncoder, width=128, depth=3, dropout=0.1, codes=128, after=3),
        "vq_apc_head": spec(Projection, features=BANDS),
    }
    objectives = {"vq_apc": spec(VectorQuantisedAPC, source="voices", shift=5, gumbel=0.5)}
    return on_stamps("vq_apc_stamps", networks, objectives, steps=steps, b2=0.999, weight_decay=0.0)
