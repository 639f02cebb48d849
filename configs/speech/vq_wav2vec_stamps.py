"""vq-wav2vec with the Gumbel softmax, from the waveform, on the stamps' voices.

    python launch/train.py --config configs/speech/vq_wav2vec_stamps.py

Convolutions, GELU, two groups over one codebook, hidden layer twice as wide as the latents: the
authors' recipe; 8 steps, 10 negatives, temperature from 2 to 0.5 along a line over the first 70 % of
the steps: the paper. The first target lies 3 steps ahead, normalisation and the head's start are those of
wav2vec_stamps.py. Nine causal convolutions of 3 instead of twelve of 2 to 13, 64 channels, 64 codes
instead of 320, width 128, batch and learning rate: ours, for two cores.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.contextual import StepHead, WaveContextEncoder
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.objectives.speech.vq_wav2vec import VQWav2Vec
from taichu_jax.ops.schedules import Linear

STEPS, CHANNELS = 8, 64


def get_config(steps=2000):
    quantiser = spec(
        ProductQuantiser, groups=2, codes=64, dim=CHANNELS, hidden=2 * CHANNELS, shared=True
    )
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
    gumbel = spec(Linear, start=2.0, end=0.5, steps=max(1, int(0.7 * steps)))
    objectives = {
        "vq_wav2vec": spec(VQWav2Vec, source="voices", steps=STEPS, first=3, gumbel=gumbel)
    }
    return on_stamps(
        "vq_wav2vec_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=8,
        audio="waveform",
        peak=3e-4,
        b2=0.999,
        weight_decay=0.0,
    )
