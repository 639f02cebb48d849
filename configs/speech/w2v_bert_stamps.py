"""w2v-BERT, the sum of two objectives on one encoder, on log-mel frames of the stamps' voices.

    python launch/train.py --config configs/speech/w2v_bert_stamps.py

Two blocks are trained by wav2vec 2.0's contrast, the two above them by the codes of hidden speech,
both with weight 1; one codebook; no penalty on the latents; spans, distractors, diversity: the paper.
The shared `draw` makes both hide the same steps. Transformer blocks instead of Conformer blocks, two
frames a token instead of four (a word is short), 128 codes instead of 1024, size, learning rate and
the Gumbel temperature's fall within this run: ours, for two cores.
Not run to its end yet; 400 steps: experiments/speech_ssl.
"""

from configs.speech._voices import FRAMES, on_stamps
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.models.quantiser import ProductQuantiser
from taichu_jax.models.speech import SpeechEncoder
from taichu_jax.objectives.speech.w2v_bert import MaskedCodes
from taichu_jax.objectives.speech.wav2vec2 import Wav2Vec2
from taichu_jax.ops.schedules import Exponential

CODES, COMPARED = 128, 64
SHARED = {"source": "voices", "input": "mel", "draw": "w2v_bert"}


def get_config(steps=2000):
    networks = {
        "speech": spec(SpeechEncoder, width=128, depth=4, heads=4, stride=2, frames=FRAMES),
        "quantiser": spec(ProductQuantiser, groups=1, codes=CODES, dim=COMPARED),
        "wav2vec2_head": spec(Projection, features=COMPARED),
        "wav2vec2_target_head": spec(Projection, features=COMPARED),
        "codes_head": spec(Projection, features=CODES),
    }
    gumbel = spec(Exponential, start=2.0, rate=0.25 ** (1 / steps), floor=0.5)
    objectives = {
        "contrast": spec(Wav2Vec2, layer=2, penalty=0.0, gumbel=gumbel, **SHARED),
        "codes": spec(MaskedCodes, **SHARED),
    }
    return on_stamps("w2v_bert_stamps", networks, objectives, steps=steps, batch_size=16, peak=5e-4)
