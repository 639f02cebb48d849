"""Causal language model of 6.7 billion parameters, compiled for TPU slices and never trained.

    python launch/compile.py --config configs/text/causal_lm_stamps_7b.py --topology v5p:4x4x8
    python launch/train.py --config configs/text/causal_lm_stamps_7b.py

What it needs per chip: experiments/scale/table.md. The second command is for such a slice.

Width, depth, heads, context, batch (2 million tokens), learning rate, b2, decay and clipping: GPT-3 6.7B
(arXiv 2005.14165, table 2.1 and appendix B); the blocks are ours, pre-norm with GELU and a tied,
BERT-like head. The vocabulary of 50,257 is rounded up to a multiple of 128, so that every axis divides
it. Data: the stamps' words, the only ones that every machine can have; own text:
--config.streams.text.path=FILE.
"""

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.text import TextEncoder
from taichu_jax.models.transformer import Stack
from taichu_jax.objectives.text.causal_lm import CausalLanguageModel
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW
from taichu_jax.training.sharding import MeshShape

VOCAB, LENGTH, ROWS = 50_304, 2048, 1024
STEPS = 143_000  # 300 billion tokens


def get_config():
    config = defaults()
    config.name = "causal_lm_stamps_7b"
    config.steps = STEPS
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB)
    config.streams = {"text": spec(Sentences, batch_size=ROWS, text_length=LENGTH, pack=True)}
    config.networks = {
        "text": spec(
            TextEncoder,
            vocab_size=VOCAB,
            width=4096,
            depth=32,
            heads=32,
            length=LENGTH,
            causal=True,
            stack=spec(Stack, remat="full", scan=True),
        )
    }
    config.objectives = {"causal_lm": spec(CausalLanguageModel, source="text", packed=True)}
    rate = spec(WarmupCosine, peak=1.2e-4, warmup=180, steps=STEPS)  # 375 million tokens
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.95, weight_decay=0.1, clip=1.0)
    config.mesh = spec(MeshShape, data=-1, fsdp=8)
    return config
