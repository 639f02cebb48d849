"""HuBERT's first iteration on log-mel frames of the stamps' voices: units are clusters of MFCCs.

    python launch/cluster.py --config configs/speech/hubert_stamps.py --features mfcc_cmvn
    python launch/train.py --config configs/speech/hubert_stamps.py

100 clusters of MFCCs at 100 Hz, spans, cosines over 0.1: the paper; tokens at 50 Hz as there (stride
2), from mel frames instead of samples, so without the penalty on the front end. MFCCs are normalised over
each recording, which the paper's are not: one voice reads a language here, and a unit would tell 1.4
instead of 0.3 bits of which it is (experiments/LOG.md). Codes of 64 numbers instead of 256, size,
learning rate: ours, for two cores. configs/speech/hubert_iteration2_stamps.py goes on from here.
2,000 steps, 10 minutes beside other programs: experiments/LOG.md; 400 of 16: experiments/speech_ssl.
"""

from configs.speech._units import with_units
from configs.speech._voices import FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.codebook import Codebook
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.hubert import HuBERT

CLUSTERS, RATE, COMPARED = 100, 100, 64


def get_config(steps=2000):
    networks = {
        "speech": spec(SpeechEncoder, width=128, depth=4, heads=4, stride=2, frames=FRAMES),
        "hubert_head": spec(Projection, features=COMPARED),
        "hubert_codebook": spec(Codebook, codes=CLUSTERS, dim=COMPARED),
    }
    objectives = {
        "hubert": spec(HuBERT, source="voices", input="mel", unit_rate=float(RATE), penalty=0.0)
    }
    config = on_stamps("hubert_stamps", networks, objectives, steps=steps, peak=5e-4)
    return with_units(config, "runs/units_mfcc", rate=RATE, clusters=CLUSTERS)
