"""wav2vec from the waveform, on the stamps' voices.

    python launch/train.py --config configs/speech/wav2vec_stamps.py

Convolutions, nine causal convolutions of 3, 12 steps, 10 negatives: the paper. The first target lies 3
steps ahead, where its window holds no sample that the state has heard, and latents are compressed by a
logarithm: the authors' code. Channels normalised step by step, so that no state knows the future
(models/contextual.py). 64 channels and width 128 instead of 512, batch and learning rate: ours, for
two cores.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.objectives.speech.wav2vec import Wav2Vec

STEPS, CHANNELS = 12, 64


def get_config(steps=2000):
    networks = {
        "speech": spec(
            WaveContextEncoder,
            width=128,
            channels=CHANNELS,
            compress=True,
            context="convolution",
            skip=True,
        ),
        "wav2vec_head": spec(StepHead, steps=STEPS, features=CHANNELS),
    }
    objectives = {"wav2vec": spec(Wav2Vec, source="voices", steps=STEPS, first=3)}
    return on_stamps(
        "wav2vec_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        audio="waveform",
        b2=0.999,
        weight_decay=0.0,
    )
