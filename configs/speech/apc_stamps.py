"""Autoregressive predictive coding (three GRU layers, five frames ahead) on the stamps' voices.

    python launch/train.py --config configs/speech/apc_stamps.py

Shift 5, GRU, 80 bands, clipping at 5: the authors' code; width 256 instead of 512 for two cores.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.recurrent import RecurrentEncoder
from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding


def get_config(steps=2000):
    networks = {
        "speech": spec(RecurrentEncoder, width=256, depth=3, dropout=0.1),
        "apc_head": spec(Projection, features=BANDS),
    }
    objectives = {"apc": spec(AutoregressivePredictiveCoding, source="voices", shift=5)}
    return on_stamps(
        "apc_stamps", networks, objectives, steps=steps, b2=0.999, weight_decay=0.0, clip=5.0
    )
