"""HuBERT's second iteration on the stamps' voices: units are clusters of the first one's states.

    python launch/cluster.py --config configs/speech/hubert_stamps.py --features mfcc_cmvn
    python launch/train.py --config configs/speech/hubert_stamps.py
    python launch/cluster.py --config configs/speech/hubert_iteration2_stamps.py \\
        --run runs/hubert_stamps --layer 2
    python launch/train.py --config configs/speech/hubert_iteration2_stamps.py

500 clusters of the states half-way up (block 2 of 4; the paper: 6 of 12), once for every token of 20
ms, and a start from new weights: the paper. The rest as in configs/speech/hubert_stamps.py.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._units import with_units
from configs.speech._voices import FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.codebook import Codebook
from taichu_jax.models.heads import Projection
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.hubert import HuBERT

CLUSTERS, RATE, COMPARED = 500, 50, 64


def get_config(steps=2000):
    networks = {
        "speech": spec(SpeechEncoder, width=128, depth=4, heads=4, stride=2, frames=FRAMES),
        "hubert_head": spec(Projection, features=COMPARED),
        "hubert_codebook": spec(Codebook, codes=CLUSTERS, dim=COMPARED),
    }
    objectives = {
        "hubert": spec(HuBERT, source="voices", input="mel", unit_rate=float(RATE), penalty=0.0)
    }
    config = on_stamps("hubert_iteration2_stamps", networks, objectives, steps=steps, peak=5e-4)
    return with_units(config, "runs/units_hubert", rate=RATE, clusters=CLUSTERS)
