"""WavLM from the waveform, small, on the stamps' voices: HuBERT's task with others talking over it.

    python launch/cluster.py --config configs/speech/wavlm_stamps.py --features mfcc_cmvn
    python launch/train.py --config configs/speech/wavlm_stamps.py

Mixing, gated relative positions (320 buckets up to 800 tokens), spans, cosines over 0.1, penalty: the
paper and fairseq; the paper's units are those of HuBERT's first iteration, here those of
configs/speech/hubert_stamps.py. Noise is white. Size, batch and learning rate: ours, for two cores.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._units import with_units
from configs.speech._voices import on_stamps
from taichu_jax.config import spec
from taichu_jax.models.codebook import Codebook
from taichu_jax.models.heads import Projection
from taichu_jax.models.wave import WaveEncoder
from taichu_jax.objectives.speech.wavlm import WavLM

CLUSTERS, RATE, COMPARED = 100, 100, 64


def get_config(steps=2000):
    networks = {
        "speech": spec(
            WaveEncoder,
            width=128,
            depth=4,
            heads=4,
            channels=64,
            positions=32,
            groups=8,
            relative_position="gated",
        ),
        "wavlm_head": spec(Projection, features=COMPARED),
        "wavlm_codebook": spec(Codebook, codes=CLUSTERS, dim=COMPARED),
    }
    objectives = {"wavlm": spec(WavLM, source="voices", unit_rate=float(RATE))}
    config = on_stamps(
        "wavlm_stamps",
        networks,
        objectives,
        steps=steps,
        batch_size=16,
        audio="waveform",
        peak=5e-4,
    )
    return with_units(config, "runs/units_mfcc", rate=RATE, clusters=CLUSTERS)
