"""vq-wav2vec with the nearest entry of a codebook (k-means), on the stamps' voices.

    python launch/train.py --config configs/speech/vq_wav2vec_kmeans_stamps.py

Commitment 0.25, weight 1 of the quantiser's loss, two groups over one codebook: the authors' recipe.
All else as in vq_wav2vec_stamps.py.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.models.quantiser import KmeansQuantiser
from taichu_jax.objectives.speech.vq_wav2vec import VQWav2Vec

STEPS, CHANNELS = 8, 64


def get_config(steps=2000):
    quantiser = spec(KmeansQuantiser, groups=2, codes=64, dim=CHANNELS, gamma=0.25, shared=True)
    networks = {
        "speech": spec(
            WaveContextEncoder,
            width=128,
            channels=CHANNELS,
            norm="group",
            activation="gelu",
            context="convolution",
            skip=True,
            quantiser=quantiser,
        ),
        "vq_wav2vec_head": spec(StepHead, steps=STEPS, features=CHANNELS, fan="out"),
    }
    objectives = {"vq_wav2vec": spec(VQWav2Vec, source="voices", steps=STEPS, first=3)}
    return on_stamps(
        "vq_wav2vec_kmeans_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        audio="waveform",
        peak=3e-4,
        b2=0.999,
        weight_decay=0.0,
    )
