"""XLNet (packed rows, two streams) on the stamps' words in 77 languages.

    python launch/train.py --config configs/text/xlnet_stamps.py

Own text: --config.streams.text.path=FILE, one sentence a line.
One in 6 tokens, in spans of up to 5: the paper, section 3.1; tokens that are not predicted see each
other, as in the authors' code. Size, b2, decay and learning rate: as in masked_lm_stamps.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.xlnet import XLNet
from taichu_jax.objectives.text.permutation_lm import PermutationLanguageModel
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

VOCAB, LENGTH = 2048, 64


def get_config(steps=2000):
    config = defaults()
    config.name = "xlnet_stamps"
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB)
    config.streams = {"text": spec(Sentences, batch_size=64, text_length=LENGTH, pack=True)}
    config.networks = {"text": spec(XLNet, vocab_size=VOCAB, width=128, depth=4, heads=4)}
    config.objectives = {
        "permutation_lm": spec(PermutationLanguageModel, source="text", context="open", packed=True)
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01, clip=1.0)
    return config
