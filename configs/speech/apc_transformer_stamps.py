"""Autoregressive predictive coding (causal transformer, five frames ahead) on the stamps' voices.

    python launch/train.py --config configs/speech/apc_transformer_stamps.py

Shift 5, 80 bands, one state per frame, clipping at 5: as apc_stamps. The journal form of the paper
(arXiv 1910.12607) puts a causal transformer in the place of the recurrent layers. Its size, the batch of
8 and the learning rate are ours, for two cores.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import BANDS, FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.apc import AutoregressivePredictiveCoding


def get_config(steps=2000):
    networks = {
        "speech": spec(
            SpeechEncoder,
            width=128,
            depth=3,
            heads=4,
            stride=1,
            frames=FRAMES,
            dropout=0.1,
            causal=True,
        ),
        "apc_head": spec(Projection, features=BANDS),
    }
    objectives = {"apc": spec(AutoregressivePredictiveCoding, source="voices", shift=5)}
    return on_stamps(
        "apc_transformer_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        peak=5e-4,
        clip=5.0,
    )
