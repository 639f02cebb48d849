"""BART (text infilling and sentence permutation) on the stamps' words in 77 languages.

    python launch/train.py --config configs/text/bart_stamps.py

Own text: --config.streams.text.path=FILE, one sentence a line; a row has lines that follow each other.
Noise: the paper, section 3; blocks, positions and norms: BART's; size, b2, decay and learning rate:
ours, for two cores.
Not run to its end yet.
"""

from taichu_jax.config import spec
from taichu_jax.data.sentences import Sentences
from taichu_jax.data.tokenizer import BPETokenizer
from taichu_jax.models.encoder_decoder import EncoderDecoder
from taichu_jax.models.style import Style
from taichu_jax.objectives.text.denoising import Denoising
from taichu_jax.ops.schedules import WarmupCosine
from taichu_jax.training.experiment import defaults
from taichu_jax.training.optim import AdamW

VOCAB, LENGTH = 2048, 64


def get_config(steps=2000):
    config = defaults()
    config.name = "bart_stamps"
    config.steps = steps
    config.tokenizer = spec(BPETokenizer, vocab_size=VOCAB)
    config.streams = {
        "text": spec(Sentences, batch_size=64, text_length=LENGTH, pack=True, consecutive=True)
    }
    config.networks = {
        "text": spec(
            EncoderDecoder,
            vocab_size=VOCAB,
            width=128,
            depth=3,
            decoder_depth=3,
            heads=4,
            length=LENGTH,
            position_offset=2,
            style=spec(Style, norm="post", first_norm=True, final_norm=False, epsilon=1e-5),
        )
    }
    config.objectives = {"denoising": spec(Denoising, source="text", permute=True)}
    rate = spec(WarmupCosine, peak=1e-3, warmup=steps // 10, steps=steps)
    config.optimizer = spec(AdamW, learning_rate=rate, b2=0.98, weight_decay=0.01, clip=1.0)
    return config
