"""Recognition of the stamps' voices with a transducer (RNN-T).

    python launch/train.py --config configs/speech/transducer_stamps.py

From nothing, on all transcripts; _transcribed.py has the arguments for a pre-trained encoder and for ten
minutes or an hour of transcripts. One layer of memory cells predicts, as in the paper, 128 of them and a
joiner of 128 tanh units (arXiv 1303.5778), over a transformer in place of the paper's bidirectional
recurrent layers. SpecAugment: the SM policy of its paper. Sizes, learning rate: ours, for two cores.
Not run to its end yet.
"""

from configs.speech._transcribed import VOCAB, WIDTH, on_transcripts, policy
from taichu_jax.config import spec
from taichu_jax.models.transducer import Joiner, Predictor
from taichu_jax.objectives.speech.transducer import Transducer


def get_config(steps=2000):
    networks = {
        "predictor": spec(Predictor, vocab_size=VOCAB, width=WIDTH, dropout=0.1),
        "joiner": spec(Joiner, vocab_size=VOCAB, hidden=WIDTH),
    }
    objective = spec(Transducer, source="voices", augment=policy())
    return on_transcripts("transducer_stamps", networks, objective, steps=steps)
