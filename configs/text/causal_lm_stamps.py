"""GPT-style language model (packed rows) on the stamps' words in 77 languages.

    python launch/train.py --config configs/text/causal_lm_stamps.py

Own text: --config.streams.text.path=FILE, one sentence a line.
b2 and decay: GPT-3; size and learning rate: ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.text import TextEncoder
from taichu_jax.objectives.text.causal_lm import CausalLanguageModel
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

VOCAB, LENGTH = 2048, 64


def get_config(steps=2000):
    config = defaults()
    config.name = "causal_lm_stamps"
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB)
    config.streams = {"text": spec(Sentences, batch_size=64, text_length=LENGTH, pack=True)}
    config.networks = {
        "text": spec(
            TextEncoder,
            vocab_size=VOCAB,
            width=128,
            depth=4,
            heads=4,
            length=LENGTH,
            causal=True,
        )
    }
    config.objectives = {"causal_lm": spec(CausalLanguageModel, source="text", packed=True)}
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.95, weight_decay=0.1, clip=1.0)
    return config
