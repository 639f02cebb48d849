"""Recognition of the stamps' voices, letter by letter, with CTC.

    python launch/train.py --config configs/speech/ctc_stamps.py

From nothing, on all transcripts; _transcribed.py has the arguments for a pre-trained encoder and for ten
minutes or an hour of transcripts. SpecAugment: the SM policy of its paper. Beam of 16 with a 5-gram of
the transcripts, sizes, learning rate: ours, for two cores.
Run with ten minutes of transcripts and Mockingjay's encoder: README.md. Not run on all of them yet.
"""

from configs.speech._transcribed import VOCAB, on_transcripts, policy
from taichu_jax.config import spec
from taichu_jax.models.heads import Projection
from taichu_jax.objectives.speech.ctc import CTC


def get_config(steps=2000):
    networks = {"ctc_head": spec(Projection, features=VOCAB)}
    objective = spec(CTC, source="voices", augment=policy())
    return on_transcripts("ctc_stamps", networks, objective, steps=steps, beam=16)
