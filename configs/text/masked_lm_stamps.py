"""BERT-style masked language model (dynamic masks, packed rows) on the stamps' words in 77 languages.

    python launch/train.py --config configs/text/masked_lm_stamps.py

Own text: --config.streams.text.path=FILE, one sentence a line.
Rate, 80/10/10, b2, decay and clip: BERT and RoBERTa; size and learning rate: ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.text.masked_lm import MaskedLanguageModel
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

VOCAB, LENGTH = 2048, 64


def get_config(steps=2000):
    config = defaults()
    config.name = "masked_lm_stamps"
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB)
    config.streams = {"text": spec(Sentences, batch_size=64, text_length=LENGTH, pack=True)}
    config.networks = {
        "text": spec(TextEncoder, vocab_size=VOCAB, width=128, depth=4, heads=4, length=LENGTH)
    }
    config.objectives = {
        "masked_lm": spec(MaskedLanguageModel, source="text", vocab_size=VOCAB, packed=True)
    }
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01, clip=1.0)
    return config
