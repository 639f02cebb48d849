"""wav2vec from the waveform, on the stamps' voices.

    python launch/train.py --config configs/speech/wav2vec_stamps.py

Convolutions, nine causal convolutions of 3, 12 steps, 10 negatives: the paper. The first target lies 3
steps ahead, where its window holds no sample that the state has heard, latents are compressed by a
logarithm, the head starts small and normalisation is over all channels and steps of a recording, so that
states know a little of the future (models/contextual.py): the authors' code. 64 channels and width 128
instead of 512, batch and learning rate: ours, for two cores. With norm='layer', fan='in' and a rate of
1e-3 the latents collapse in 40 steps: experiments/LOG.md.
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
            norm="group",
            compress=True,
            context="convolution",
            skip=True,
        ),
        "wav2vec_head": spec(StepHead, steps=STEPS, features=CHANNELS, fan="out"),
    }
    objectives = {"wav2vec": spec(Wav2Vec, source="voices", steps=STEPS, first=3)}
    return on_stamps(
        "wav2vec_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        audio="waveform",
        peak=3e-4,
        b2=0.999,
        weight_decay=0.0,
    )
