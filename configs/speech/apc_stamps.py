"""Autoregressive predictive coding (three GRU layers, five frames ahead) on the stamps' voices.

    python launch/train.py --config configs/speech/apc_stamps.py

Shift 5, GRU, 80 bands: the authors' code; width 256 instead of 512 for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.streams import Recordings
from taichu_jax.evals.probes import LanguageProbe
from taichu_jax.models.heads import Projection
from taichu_jax.models.recurrent import RecurrentEncoder
from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

BANDS = 80


def get_config():
    config = defaults()
    config.name = "apc_stamps"
    config.steps = 2000
    voices = spec(Recordings, batch_size=32, seconds=2.0, mel_bands=BANDS)
    config.streams = {"voices": voices}
    config.networks = {
        "speech": spec(RecurrentEncoder, width=256, depth=3, dropout=0.1),
        "apc_head": spec(Projection, features=BANDS),
    }
    config.objectives = {"apc": spec(AutoregressivePredictiveCoding, source="voices", shift=5)}
    rate = spec(WarmupCosine, peak=1e-3, warmup=200, steps=config.steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.999, weight_decay=0.0, clip=5.0)
    config.evaluations = {"language": spec(LanguageProbe, stream=voices, encoder="speech")}
    return config
