"""Contrastive predictive coding from the waveform, on the stamps' voices.

    python launch/train.py --config configs/speech/cpc_stamps.py

Convolutions, normalisation, 12 steps, negatives of the same voice, one LSTM layer: arXiv
2002.02848 and its code, with the papers' linear predictions. 64 negatives instead of 128, width
128 and 64 channels instead of 256, batch and learning rate: ours, for two cores. In the stamps a
language is a voice.
Beside the other methods, after 400 steps of 16: experiments/speech_ssl. Not run to its end yet.
"""

from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.objectives.speech.cpc import ContrastivePredictiveCoding

STEPS, CHANNELS = 12, 64


def get_config(steps=2000):
    networks = {
        "speech": spec(WaveContextEncoder, width=128, channels=CHANNELS, context="lstm"),
        "cpc_head": spec(StepHead, steps=STEPS, features=CHANNELS, bias=False),
    }
    objectives = {"cpc": spec(ContrastivePredictiveCoding, source="voices", steps=STEPS, count=64)}
    return on_stamps(
        "cpc_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        audio="waveform",
        b2=0.999,
        weight_decay=0.0,
    )
